"""Task-aligned assigner of YOLO11, a subclass of ``BatchTaskAlignedAssigner`` (TOOD, https://arxiv.org/abs/2108.07755).

Differences to MMYOLO's: the class count comes from the logits, so that a config states it once, in the head; boxes
smaller than a cell of the second level still get candidates; a prior that is a candidate of several boxes is assigned
to one that contains it, not to one that only overlaps its prediction; and there is no integer mask ten times the size
of the metrics.

Shapes: B batch, G boxes of an image, N priors.
"""

import torch
from mmyolo.models.task_modules.assigners import BatchTaskAlignedAssigner
from mmyolo.models.task_modules.assigners.utils import select_candidates_in_gts
from mmyolo.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class YOLO11Assigner(BatchTaskAlignedAssigner):
    """Assigner of YOLO11, as in the Ultralytics package since 8.4.

    Args:
        min_side: Minimum side in pixels of the box in which priors are candidates; 0 does not enlarge boxes, as in
            earlier versions of the package.
        num_classes: Not needed, because the logits have it; configs of MMYOLO state it, and :class:`YOLO11Head` checks
            it.
        **kwargs: As in ``BatchTaskAlignedAssigner``.

    Raises:
        ValueError: ``min_side`` is negative.

    Example:
        >>> TASK_UTILS.build(dict(type='YOLO11Assigner', topk=10, alpha=0.5, beta=6.0)).min_side
        16
    """

    def __init__(self, min_side: float = 16, num_classes: int | None = None, **kwargs) -> None:
        if min_side < 0:
            raise ValueError(f'min_side must be at least 0, got {min_side}')
        super().__init__(num_classes=num_classes or 0, **kwargs)
        self.min_side, self.stated_classes = min_side, num_classes

    def forward(self, pred_bboxes: Tensor, pred_scores: Tensor, *args, **kwargs) -> dict:
        """Assign, with the class count of ``pred_scores`` (B, N, classes)."""
        self.num_classes = pred_scores.shape[-1]
        return super().forward(pred_bboxes, pred_scores, *args, **kwargs)

    def get_pos_mask(
        self,
        pred_bboxes: Tensor,
        pred_scores: Tensor,
        priors: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        pad_bbox_flag: Tensor,
        batch_size: int,
        num_gt: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Select the priors that may be positive for each box.

        Args:
            pred_bboxes: Predicted boxes, corners in pixels, (B, N, 4).
            pred_scores: Predicted scores, (B, N, classes).
            priors: Centres of the cells in pixels, (N, 2).
            gt_labels: Labels, (B, G, 1).
            gt_bboxes: Boxes, corners in pixels, (B, G, 4).
            pad_bbox_flag: 1 for a box, 0 for padding, (B, G, 1).
            batch_size: B.
            num_gt: G.

        Returns:
            Mask of the top candidates, alignment metrics, and overlaps, each (B, G, N); the last two are zero where
            a prior lies outside of the box.
        """
        metrics, overlaps = self.get_box_metrics(pred_bboxes, pred_scores, gt_labels, gt_bboxes, batch_size, num_gt)
        inside = select_candidates_in_gts(priors, self._enlarged(gt_bboxes)) * pad_bbox_flag  # (B, G, N)
        metrics, overlaps = metrics * inside, overlaps * inside
        top = self.select_topk_candidates(metrics, topk_mask=pad_bbox_flag.repeat(1, 1, self.topk).bool())
        return top * inside, metrics, overlaps

    def select_topk_candidates(
        self, alignment_gt_metrics: Tensor, using_largest_topk: bool = True, topk_mask: Tensor | None = None
    ) -> Tensor:
        """Select the best priors of each box: MMYOLO's result without its (B, G, top k, N) integers.

        Args:
            alignment_gt_metrics: Alignment metrics, (B, G, N).
            using_largest_topk: Whether larger metrics are better.
            topk_mask: True for valid ranks, (B, G, top k); by default all are valid.

        Returns:
            1 for a candidate, 0 otherwise, (B, G, N).
        """
        ranked = alignment_gt_metrics.topk(self.topk, dim=-1, largest=using_largest_topk).indices  # (B, G, top k)
        counts = torch.ones_like(ranked, dtype=torch.bool) if topk_mask is None else topk_mask
        mask = torch.zeros_like(alignment_gt_metrics)
        return mask.scatter_(-1, ranked, counts.to(mask.dtype))

    def get_targets(
        self,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        assigned_gt_idxs: Tensor,
        fg_mask_pre_prior: Tensor,
        batch_size: int,
        num_gt: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The targets of every prior: MMYOLO's result without its (B, N, classes) integers.

        Args:
            gt_labels: Labels, (B, G, 1).
            gt_bboxes: Boxes, corners in pixels, (B, G, 4).
            assigned_gt_idxs: Index of the box to which a prior is assigned, (B, N).
            fg_mask_pre_prior: Above zero for positive priors, (B, N).
            batch_size: B.
            num_gt: G.

        Returns:
            Labels (B, N), boxes (B, N, 4), and scores (B, N, classes), 1 for the label of a positive prior.
        """
        labels = gt_labels.squeeze(-1).long().gather(1, assigned_gt_idxs).clamp(min=0)
        boxes = gt_bboxes.gather(1, assigned_gt_idxs[..., None].expand(-1, -1, 4))
        scores = gt_bboxes.new_zeros(*labels.shape, self.num_classes)
        positive = (fg_mask_pre_prior > 0)[..., None].to(scores.dtype)
        return labels, boxes, scores.scatter_(2, labels[..., None], positive)

    def _enlarged(self, boxes: Tensor) -> Tensor:
        """Boxes with the same centres and no side shorter than ``min_side``."""
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        half_sides = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=self.min_side / 2)
        return torch.cat([centres - half_sides, centres + half_sides], dim=-1)
