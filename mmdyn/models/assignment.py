"""The objects of a batch, and the priors that were assigned to them, as tensors whose shapes need no value of a device.

MMYOLO's batch is a tensor (n, 6) of all objects, and its losses select positive priors by masks. Both make a GPU wait
for the CPU, which does not know how many there are. Here objects are padded to the image with most of them, and
positives to an upper bound: each object has at most ``topk`` priors. On a CPU, where counting is free, the bound is
their number.

Shapes: B batch, G objects of an image, N priors, P positives of an image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor


class Targets(NamedTuple):
    """The objects of a batch.

    Args:
        labels: (B, G, 1).
        boxes: Corners in pixels, (B, G, 4); or whatever else an assigner and a head take for a box.
        present: 1 for an object, 0 for padding, (B, G, 1).
        counts: Objects of every image, of length B.
        extras: What a task adds, by name: masks (B, h, w), keypoints (B, G, K, 3), ….

    Example:
        >>> table = torch.tensor([[0, 3, 5, 5, 9, 9], [0, 1, 0, 0, 4, 4], [2, 1, 0, 0, 8, 8.0]])
        >>> targets = targets_of(table, 3, [2, 0, 1])
        >>> targets.labels.squeeze(-1).tolist(), targets.present.sum((1, 2)).tolist()
        ([[3.0, 1.0], [0.0, 0.0], [1.0, 0.0]], [2.0, 0.0, 1.0])
    """

    labels: Tensor
    boxes: Tensor
    present: Tensor
    counts: Sequence[int]
    extras: dict[str, Tensor] = {}


def padded(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of all images (n, …) as (B, G, …), zeros after the rows of an image."""
    most = max(counts, default=0)
    return torch.stack([
        F.pad(each, (0, 0) * (rows.ndim - 1) + (0, most - len(each))) for each in rows.split(list(counts))
    ])  # fmt: skip


def targets_of(table: Tensor | Sequence[InstanceData], batch: int, counts: Sequence[int] | None = None) -> Targets:
    """Targets of MMYOLO's table, or of MMDetection's instances.

    Args:
        table: Index of the image, label and corners of every object, (n, 6); or ``labels`` and ``bboxes`` of every
            image.
        batch: B.
        counts: Objects of every image, which are in the order of the images. Without, they are counted and sorted.
    """
    if not isinstance(table, Tensor):
        counts = [len(each) for each in table]
        rows = [torch.cat([each.labels[:, None].to(each.bboxes), each.bboxes], 1) for each in table]
        objects = torch.cat(rows)
    else:
        if counts is None:
            counts = torch.bincount(table[:, 0].long(), minlength=batch).tolist()
            table = table[table[:, 0].argsort(stable=True)]
        objects = table[:, 1:]
    present = padded(torch.ones_like(objects[:, :1]), counts)
    objects = padded(objects, counts)
    return Targets(objects[..., :1], objects[..., 1:], present, counts)


class Positives(NamedTuple):
    """The priors with an object; the last ones of an image may be none, and have weight 0.

    Args:
        prior: Which prior, (B, P).
        object: Which object of its image, (B, P).
        present: Whether it is one, (B, P) bool.
        weight: Its score as a target, (B, P).
        boxes: Of its object, as in :class:`Targets`; where it is none, its cell.
        counts: Upper bounds of the positives of every image, of length B.
    """

    prior: Tensor
    object: Tensor
    present: Tensor
    weight: Tensor
    boxes: Tensor
    counts: Sequence[int]

    def take(self, values: Tensor) -> Tensor:
        """The rows of the positives, (B, P, …), of what all priors have, (B, N, …) or (N, …)."""
        if values.ndim < 3:
            return values[self.prior]
        return values.gather(1, self.prior[..., None].expand(-1, -1, values.shape[-1]))


def positives_of(assigned: dict[str, Tensor], cells: Tensor, counts: Sequence[int], topk: int) -> Positives:
    """The positives of an assignment.

    Args:
        assigned: Result of :class:`YOLO11Assigner`.
        cells: The cell of every prior as a box, (N, 4).
        counts: Objects of every image.
        topk: Most priors of an object.
    """
    mask = assigned['fg_mask_pre_prior']  # (B, N)
    if mask.device.type == 'cpu':
        bounds = mask.sum(1).tolist()
    else:
        bounds = [min(count * topk, mask.shape[1]) for count in counts]
    size = max(bounds, default=0)
    rank = torch.where(mask, mask.cumsum(1) - 1, size)  # (B, N), those without object behind the last
    numbers = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    prior = torch.zeros(len(mask), size + 1, dtype=torch.long, device=mask.device).scatter_(1, rank, numbers)[:, :size]
    present = torch.arange(size, device=mask.device) < mask.sum(1, keepdim=True)  # (B, P)
    scores = assigned['assigned_scores'].sum(-1).gather(1, prior)
    boxes = assigned['assigned_bboxes']
    boxes = boxes.gather(1, prior[..., None].expand(-1, -1, boxes.shape[2]))
    return Positives(
        prior=prior,
        object=assigned['assigned_gt_idxs'].gather(1, prior),
        present=present,
        weight=scores * present,
        boxes=torch.where(present[..., None], boxes, cells[prior].to(boxes)),
        counts=bounds,
    )
