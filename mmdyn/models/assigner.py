"""Task-aligned assigner of YOLO11, a subclass of ``BatchTaskAlignedAssigner`` (TOOD, https://arxiv.org/abs/2108.07755).

Differences to MMYOLO's: the class count comes from the logits, so that a config states it once, in the head; boxes
smaller than a cell of the second level still get candidates; a prior that is a candidate of several boxes is assigned
to one that contains it, not to one that only overlaps its prediction; there is no integer mask ten times the size of
the metrics; the result says which box a prior is assigned to; and no value of a tensor is asked for, so that a GPU is
not waited for.

Shapes: B batch, G boxes of an image, N priors.
"""

import torch
from mmyolo.models.losses import bbox_overlaps
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

    def forward(
        self,
        pred_bboxes: Tensor,
        pred_scores: Tensor,
        priors: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        pad_bbox_flag: Tensor,
    ) -> dict[str, Tensor]:
        """Assign a box, or none, to every prior.

        Args:
            pred_bboxes: Predicted boxes, corners in pixels, (B, N, 4).
            pred_scores: Predicted scores, (B, N, classes).
            priors: Centres of the cells in pixels, (N, 2 or more).
            gt_labels: Labels, (B, G, 1).
            gt_bboxes: Boxes, corners in pixels, (B, G, 4).
            pad_bbox_flag: 1 for a box, 0 for padding, (B, G, 1).

        Returns:
            ``assigned_labels`` (B, N), ``assigned_bboxes`` (B, N, 4), ``assigned_scores`` (B, N, classes),
            ``fg_mask_pre_prior``, whether a prior has a box, (B, N) bool, and ``assigned_gt_idxs``, which one, (B, N).
        """
        batch, count, self.num_classes = pred_scores.shape
        boxes = gt_bboxes.shape[1]
        if boxes == 0:
            return dict(
                assigned_labels=gt_bboxes.new_full((batch, count), self.num_classes),
                assigned_bboxes=gt_bboxes.new_zeros(batch, count, gt_bboxes.shape[2]),
                assigned_scores=gt_bboxes.new_zeros(pred_scores.shape),
                fg_mask_pre_prior=gt_bboxes.new_zeros(batch, count, dtype=torch.bool),
                assigned_gt_idxs=gt_bboxes.new_zeros(batch, count, dtype=torch.long),
            )
        candidates, metrics, overlaps = self.get_pos_mask(
            pred_bboxes, pred_scores, priors[:, :2], gt_labels, gt_bboxes, pad_bbox_flag, batch, boxes
        )
        mask = _one_box_each(candidates, overlaps)  # (B, G, N)
        positive, which = mask.max(1)
        labels, targets, scores = self.get_targets(gt_labels, gt_bboxes, which, positive, batch, boxes)
        metrics = metrics * mask
        best = (overlaps * mask).amax(2, keepdim=True) / (metrics.amax(2, keepdim=True) + self.eps)
        return dict(
            assigned_labels=labels,
            assigned_bboxes=targets,
            assigned_scores=scores * (metrics * best).amax(1)[..., None],
            fg_mask_pre_prior=positive > 0,
            assigned_gt_idxs=which,
        )

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
            pred_bboxes: As all but the last two in :meth:`forward`.
            pred_scores: As there.
            priors: Centres only, (N, 2).
            gt_labels: As there.
            gt_bboxes: As there.
            pad_bbox_flag: As there.
            batch_size: B.
            num_gt: G.

        Returns:
            Mask of the top candidates, alignment metrics, and overlaps, each (B, G, N); the last two are zero where
            a prior lies outside of the box.
        """
        metrics, overlaps = self.get_box_metrics(pred_bboxes, pred_scores, gt_labels, gt_bboxes, batch_size, num_gt)
        inside = self.inside(priors, gt_bboxes) * pad_bbox_flag  # (B, G, N)
        metrics, overlaps = metrics * inside, overlaps * inside
        top = self.select_topk_candidates(metrics, topk_mask=pad_bbox_flag.repeat(1, 1, self.topk).bool())
        return top * inside, metrics, overlaps

    def get_box_metrics(
        self,
        pred_bboxes: Tensor,
        pred_scores: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        batch_size: int,
        num_gt: int,
    ) -> tuple[Tensor, Tensor]:
        """Alignment metrics and overlaps, each (B, G, N): MMYOLO's result without its indices on the CPU.

        Arguments are those of :meth:`get_pos_mask`.
        """
        if not self.use_ciou:
            return super().get_box_metrics(pred_bboxes, pred_scores, gt_labels, gt_bboxes, batch_size, num_gt)
        labels = gt_labels.long().expand(-1, -1, pred_scores.shape[1])  # (B, G, N)
        scores = pred_scores.transpose(1, 2).gather(1, labels)
        overlaps = self.overlaps(pred_bboxes, gt_bboxes)
        return scores.pow(self.alpha) * overlaps.pow(self.beta), overlaps

    def overlaps(self, pred_bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Overlaps of predictions (B, N, 4) and boxes (B, G, 4), (B, G, N), at least 0."""
        return bbox_overlaps(pred_bboxes[:, None], gt_bboxes[:, :, None], iou_mode='ciou', bbox_format='xyxy').clamp(
            min=0
        )

    def inside(self, priors: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Which priors (N, 2) are in which boxes (B, G, 4), none of whose sides is below ``min_side``, (B, G, N)."""
        return select_candidates_in_gts(priors, self._enlarged(gt_bboxes))

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
        boxes = gt_bboxes.gather(1, assigned_gt_idxs[..., None].expand(-1, -1, gt_bboxes.shape[2]))
        scores = gt_bboxes.new_zeros(*labels.shape, self.num_classes)
        positive = (fg_mask_pre_prior > 0)[..., None].to(scores.dtype)
        return labels, boxes, scores.scatter_(2, labels[..., None], positive)

    def _enlarged(self, boxes: Tensor) -> Tensor:
        """Boxes with the same centres and no side shorter than ``min_side``."""
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        half_sides = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=self.min_side / 2)
        return torch.cat([centres - half_sides, centres + half_sides], dim=-1)


def _one_box_each(candidates: Tensor, overlaps: Tensor) -> Tensor:
    """Candidates (B, G, N) in which a prior of several boxes keeps the one that it overlaps most."""
    best = torch.zeros_like(candidates).scatter_(1, overlaps.max(1, keepdim=True).indices, 1)
    return torch.where(candidates.sum(1, keepdim=True) > 1, best, candidates)
