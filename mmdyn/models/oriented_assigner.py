"""Task-aligned assigner of oriented boxes: candidates inside of the turned rectangle, overlaps by ProbIoU."""

import torch
from mmyolo.registry import TASK_UTILS
from torch import Tensor

from .assigner import YOLO11Assigner
from .oriented import inside, prob_iou


@TASK_UTILS.register_module()
class OrientedAssigner(YOLO11Assigner):
    """:class:`YOLO11Assigner` of oriented boxes, five numbers each as in :mod:`mmdyn.models.oriented`.

    Arguments are the same.

    Example:
        >>> assigner = TASK_UTILS.build(dict(type='OrientedAssigner', topk=10, use_ciou=True))
        >>> box = torch.tensor([[[40.0, 40, 60, 8, 0.785]]])
        >>> assigner.inside(torch.tensor([[60.0, 60], [60, 20]]), box).tolist()
        [[[True, False]]]
    """

    def overlaps(self, pred_bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """ProbIoU of predictions (B, N, 5) and boxes (B, G, 5), (B, G, N)."""
        return prob_iou(gt_bboxes[:, :, None], pred_bboxes[:, None]).clamp(min=0)

    def inside(self, priors: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Which priors (N, 2) are in which boxes (B, G, 5), none of whose sides is below ``min_side``, (B, G, N)."""
        sides = gt_bboxes[..., 2:4].clamp(min=self.min_side)
        return inside(priors, torch.cat([gt_bboxes[..., :2], sides, gt_bboxes[..., 4:]], -1))
