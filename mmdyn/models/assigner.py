"""Task-aligned assigner that takes the class count from the logits, so that a config states it once, in the head."""

from mmyolo.models.task_modules.assigners import BatchTaskAlignedAssigner
from mmyolo.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class YOLO11Assigner(BatchTaskAlignedAssigner):
    """MMYOLO's ``BatchTaskAlignedAssigner`` (TOOD, https://arxiv.org/abs/2108.07755) without ``num_classes``.

    Args:
        **kwargs: As in ``BatchTaskAlignedAssigner``, except ``num_classes``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(num_classes=0, **kwargs)

    def forward(self, pred_bboxes: Tensor, pred_scores: Tensor, *args, **kwargs) -> dict:
        """Assign, with the class count of ``pred_scores`` (B, N, classes)."""
        self.num_classes = pred_scores.shape[-1]
        return super().forward(pred_bboxes, pred_scores, *args, **kwargs)
