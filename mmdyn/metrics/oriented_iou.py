"""Overlap of oriented boxes: exact, of their areas, by shapely; or ProbIoU.

``torchvision.ops.box_iou`` of 0.29 and OpenCV's ``intersectConvexConvex`` are exact for most pairs, but of boxes
that differ by a millionth of a pixel they give a third, or nothing, for some.
"""

from collections.abc import Callable

import numpy as np
import shapely
import torch

from mmdyn.models.oriented import corners_of, prob_iou, upright_of


def exact_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of rectangles.

    Args:
        boxes: (n, 5), see :mod:`mmdyn.models.oriented`.
        others: (m, 5).

    Returns:
        (n, m); 0 where a box has no area.

    Example:
        >>> square = np.array([[5, 5, 10, 10, 0.0]])
        >>> exact_iou(square, square + [[5, 0, 0, 0, 0]]).round(4).tolist()
        [[0.3333]]
    """
    shared = intersections(boxes, others)
    union = boxes[:, None, 2:4].prod(2) + others[None, :, 2:4].prod(2) - shared
    return np.where(shared > 0, shared / np.maximum(union, 1e-12), 0.0)


def intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas that rectangles (n, 5) and (m, 5) share, (n, m)."""
    one, other = (torch.from_numpy(np.asarray(each, np.float64).reshape(-1, 5)) for each in (boxes, others))
    around, around_others = upright_of(one)[:, None], upright_of(other)[None]
    near = (around[..., :2] < around_others[..., 2:]) & (around_others[..., :2] < around[..., 2:])
    areas = np.zeros((len(one), len(other)))
    rows, columns = near.all(2).numpy().nonzero()
    polygons, other_polygons = (shapely.polygons(corners_of(each).numpy()) for each in (one, other))
    areas[rows, columns] = shapely.area(shapely.intersection(polygons[rows], other_polygons[columns]))
    return areas


def prob_iou_matrix(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """ProbIoU of oriented boxes (n, 5) and (m, 5), (n, m)."""
    one, other = (torch.from_numpy(np.asarray(b, np.float64)) for b in (boxes, others))
    return prob_iou(one[:, None], other[None]).numpy()


def overlaps_of(overlap: str, boxes: np.ndarray, others: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Overlaps of predictions and objects; with a group (``iscrowd``) it is the share of a prediction, as in COCO.

    Args:
        overlap: A key of ``OVERLAPS``; ProbIoU knows no shares.
        boxes: (p, 5).
        others: (o, 5).
        groups: Which of ``others`` are groups, (o,) bool.

    Returns:
        (p, o).
    """
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    overlaps = OVERLAPS[overlap](boxes, others)
    if overlap != 'exact' or not groups.any():
        return overlaps
    areas, whole = boxes[:, None, 2:4].prod(2), others[None, :, 2:4].prod(2)
    shared = overlaps * (areas + whole) / (1 + overlaps)
    return np.where(groups, shared / np.maximum(areas, 1e-12), overlaps)


OVERLAPS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {'exact': exact_iou, 'prob': prob_iou_matrix}
