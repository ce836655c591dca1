"""Oriented boxes as tensors: geometry, overlap as of Gaussians, and suppression.

An oriented box is five numbers: its centre, width and height in pixels, and the angle in radians by which it is turned
from the x axis towards the y axis, clockwise in an image, whose y axis points down.
"""

import torch
from torch import Tensor

EPS = 1e-7
CHUNK = 512  # boxes whose overlaps with all before them are in memory together


def axes_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """From the centres of oriented boxes (…, 5) to their right sides, and to their lower ones, (…, 2) each."""
    width, height, angle = boxes[..., 2:].unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    along = torch.stack([cos * width, sin * width], -1) / 2
    across = torch.stack([-sin * height, cos * height], -1) / 2
    return along, across


def corners_of(boxes: Tensor) -> Tensor:
    """Corners of oriented boxes (…, 5) in turn, (…, 4, 2).

    Example:
        >>> corners_of(torch.tensor([10.0, 10, 4, 2, 0])).tolist()
        [[8.0, 9.0], [12.0, 9.0], [12.0, 11.0], [8.0, 11.0]]
    """
    (along, across), centre = axes_of(boxes), boxes[..., :2]
    return torch.stack(
        [centre - along - across, centre + along - across, centre + along + across, centre - along + across], -2
    )


def upright_of(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom (…, 4) of the upright boxes around oriented ones (…, 5)."""
    along, across = axes_of(boxes)
    reach, centre = along.abs() + across.abs(), boxes[..., :2]
    return torch.cat([centre - reach, centre + reach], -1)


def from_distances(centres: Tensor, distances: Tensor, angles: Tensor) -> Tensor:
    """Oriented boxes (…, 5) of distances from points to the four sides, in the turned frame.

    Args:
        centres: The points, (…, 2).
        distances: To the left, upper, right and lower side, (…, 4).
        angles: (…, 1).
    """
    low, high = distances.split(2, -1)
    x, y = ((high - low) / 2).split(1, -1)
    cos, sin = angles.cos(), angles.sin()
    offset = torch.cat([x * cos - y * sin, x * sin + y * cos], -1)
    return torch.cat([centres + offset, low + high, angles], -1)


def to_distances(centres: Tensor, boxes: Tensor) -> Tensor:
    """The way back of :func:`from_distances`, (…, 4): negative where a point (…, 2) is outside of its box (…, 5)."""
    x, y = (boxes[..., :2] - centres).split(1, -1)
    cos, sin = boxes[..., 4:].cos(), boxes[..., 4:].sin()
    offset = torch.cat([x * cos + y * sin, y * cos - x * sin], -1)
    half = boxes[..., 2:4] / 2
    return torch.cat([half - offset, half + offset], -1)


def _variances(boxes: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Variances along x and y, and covariance, (…), of the Gaussians of oriented boxes (…, 5)."""
    along, across = (boxes[..., 2:4].square() / 12 + floor).unbind(-1)
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    return (
        along * cos.square() + across * sin.square(),
        along * sin.square() + across * cos.square(),
        (along - across) * cos * sin,
    )


def prob_iou(boxes: Tensor, others: Tensor, floor: float = 0.0) -> Tensor:
    """Overlap of oriented boxes as one minus the Hellinger distance of Gaussians with their moments.

    ProbIoU, https://arxiv.org/abs/2106.06072, equations 5 to 12.

    Args:
        boxes: (…, 5), in pixels and radians.
        others: (…, 5); broadcast with ``boxes``.
        floor: Added to the variances along both sides, so that gradients of thin boxes are bounded.

    Returns:
        From 0, far apart, to 1, the same; (…).

    Example:
        >>> box = torch.tensor([50.0, 50, 40, 20, 0])
        >>> [round(float(prob_iou(box, box + torch.tensor([x, 0, 0, 0, 0]))), 3) for x in (0.0, 10, 40, 400)]
        [1.0, 0.701, 0.119, 0.0]
    """
    xx, yy, xy = (one + other for one, other in zip(_variances(boxes, floor), _variances(others, floor), strict=True))
    dx, dy = (boxes[..., :2] - others[..., :2]).unbind(-1)
    joint = (xx * yy - xy.square()).clamp(min=0.0)  # rounding may take that of lines below
    apart = (xx * dy.square() + yy * dx.square()) / (joint + EPS) / 4 - xy * dx * dy / (joint + EPS) / 2
    own, theirs = (
        (a * b - c.square()).clamp(min=0.0) for a, b, c in (_variances(boxes, floor), _variances(others, floor))
    )
    shape = (joint / (4 * (own * theirs).sqrt() + EPS) + EPS).log() / 2
    distance = (apart + shape).clamp(EPS, 100.0)
    return 1 - (1 - (-distance).exp() + EPS).sqrt()


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (N, 2) are in which oriented boxes (…, G, 5), their borders included, (…, G, N) bool."""
    along, across = axes_of(boxes)
    away = points - boxes[..., None, :2]  # (…, G, N, 2)
    within = [
        (away @ axis[..., None]).squeeze(-1).abs() <= axis.square().sum(-1, keepdim=True) for axis in (along, across)
    ]
    return within[0] & within[1]


def suppressed(boxes: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Fast NMS: which oriented boxes overlap one of a higher score, in one step.

    Other than in NMS, a box that is dropped drops others. YOLACT, https://arxiv.org/abs/1904.02689, section 4.2.

    Args:
        boxes: (n, 5) by falling score.
        groups: Boxes of different groups do not suppress each other, (n,).
        iou: ProbIoU above which a box is dropped.

    Returns:
        (n,) bool.
    """
    dropped = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        [rows] = torch.where(groups == group)
        mine = boxes[rows]
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            overlaps = prob_iou(mine[: start + CHUNK, None], mine[None, part])  # (before, part)
            dropped[rows[part]] = (overlaps.triu(1 - start) > iou).any(0)
    return dropped
