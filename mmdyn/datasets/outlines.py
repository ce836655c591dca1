"""Outlines of objects, one polygon each, through the steps of a pipeline; and their masks.

As in the original YOLO11 (https://docs.ultralytics.com/reference/data/augment), the parts of an object are joined by
bridges without width, holes are lost, and a polygon has a thousand points, its corners among them: so the outline of an
object that a border cuts follows the border.

Shapes: n objects, P points of each.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask
from mmdet.structures.mask import PolygonMasks

from mmdyn.errors import UserError

POINTS = 1000
RATIO = 4  # of an image to its masks


class Outlines(PolygonMasks):
    """Outlines of the objects of an image, as one array; a ``PolygonMasks`` for steps of MMDetection and MMYOLO.

    Args:
        points: Corners in pixels, (n, P, 2).
        height: Of the image.
        width: Of the image.

    Example:
        >>> outlines = Outlines.of([np.array([[0, 0], [8, 0], [8, 4], [0, 4.0]])], 20, 20)
        >>> outlines.points.shape, outlines.flip().boxes().tolist()
        ((1, 1000, 2), [[12.0, 0.0, 20.0, 4.0]])
    """

    def __init__(self, points: np.ndarray, height: int, width: int) -> None:
        self.points, self.height, self.width = points, height, width

    @classmethod
    def of(cls, polygons: Sequence[np.ndarray], height: int, width: int) -> 'Outlines':
        """Outlines of polygons with any number of corners, each (p, 2)."""
        count = max([POINTS, *(len(p) + 1 for p in polygons)])
        points = np.zeros((len(polygons), count, 2), np.float32)
        for row, polygon in zip(points, polygons, strict=True):
            row[:] = resampled(polygon, count)
        return cls(points, height, width)

    @property
    def masks(self) -> list[list[np.ndarray]]:
        """As in ``PolygonMasks``: one flat polygon of every object."""
        return [[each.reshape(-1)] for each in self.points]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> 'Outlines':
        index = index if isinstance(index, slice) else np.atleast_1d(np.asarray(index))
        return type(self)(self.points[index], self.height, self.width)

    def copy(self) -> 'Outlines':
        """With an array of its own."""
        return type(self)(self.points.copy(), self.height, self.width)

    def boxes(self) -> np.ndarray:
        """Corners of the boxes around the outlines, (n, 4)."""
        if not len(self):
            return np.zeros((0, 4), np.float32)
        return np.concatenate([self.points.min(1), self.points.max(1)], 1)

    def resize(self, out_shape: tuple[int, int], interpolation: Any = None) -> 'Outlines':
        """Of the image in another height and width."""
        height, width = out_shape
        scale = np.array([width / self.width, height / self.height], np.float32)
        return type(self)(self.points * scale, height, width)

    def rescale(self, scale: Any, interpolation: Any = None) -> 'Outlines':
        """Not needed by the pipelines here."""
        raise NotImplementedError('outlines are resized by LongSideResize and LetterResize, set one of them')

    def translate(
        self, out_shape: tuple[int, int], offset: float, direction: str = 'horizontal', **_: Any
    ) -> 'Outlines':
        """Moved to the right, or down (``'vertical'``), in an image of this height and width."""
        by = (offset, 0) if direction == 'horizontal' else (0, offset)
        return self.moved(by, *out_shape)

    def moved(self, by: tuple[float, float], height: int, width: int) -> 'Outlines':
        """Moved by x and y, in an image of this height and width."""
        return type(self)(self.points + np.array(by, np.float32), height, width)

    def warped(self, matrix: np.ndarray, height: int, width: int) -> 'Outlines':
        """Under an affine matrix (3, 3), in an image of this height and width."""
        kind = self.points.dtype
        points = self.points @ matrix[:2, :2].T.astype(kind) + matrix[:2, 2].astype(kind)
        return type(self)(points, height, width)

    def flip(self, flip_direction: str = 'horizontal') -> 'Outlines':
        """Mirrored, ``'horizontal'``, ``'vertical'`` or ``'diagonal'`` (both)."""
        points = self.points.copy()
        if flip_direction != 'vertical':
            points[..., 0] = self.width - points[..., 0]
        if flip_direction != 'horizontal':
            points[..., 1] = self.height - points[..., 1]
        return type(self)(points, self.height, self.width)

    def clipped(self, boxes: np.ndarray) -> 'Outlines':
        """Every point moved into the box of its object, (n, 4) or (1, 4)."""
        return type(self)(np.clip(self.points, boxes[:, None, :2], boxes[:, None, 2:]), self.height, self.width)

    @classmethod
    def cat(cls, masks: Iterable['Outlines']) -> 'Outlines':
        """Those of several images of one size, which the first one states."""
        parts = list(masks)
        count = max(part.points.shape[1] for part in parts)
        points = [np.pad(p.points, ((0, 0), (0, count - p.points.shape[1]), (0, 0)), 'edge') for p in parts]
        return cls(np.concatenate(points), parts[0].height, parts[0].width)

    def plane(self) -> np.ndarray:
        """For every pixel of a quarter of the image the object on top there, 0 for none.

        Smaller objects are on top of larger ones. Numbers begin at 1, in the order of the outlines.

        Returns:
            (height / 4, width / 4), uint8, or int32 for more than 255 objects.
        """
        plane = np.zeros((self.height // RATIO, self.width // RATIO), np.uint8 if len(self) < 256 else np.int32)
        drawn = [small_mask(each, self.height, self.width) for each in self.points]
        areas = np.array([int(mask.sum()) for mask, _ in drawn])
        for i in np.argsort(-areas, kind='stable'):
            mask, (top, left) = drawn[i]
            part = plane[top : top + mask.shape[0], left : left + mask.shape[1]]
            part[mask > 0] = i + 1
        return plane


def run_lengths(segmentation: Any, height: int, width: int, where: str = '') -> Any:
    """COCO's ``segmentation`` of an object as compressed run-length codes.

    Args:
        segmentation: Polygons, or run-length codes, compressed or not.
        height: Of the image.
        width: Of the image.
        where: What it belongs to, for messages.

    Raises:
        UserError: Run-length codes are of another size than the image.
    """
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if len(part) >= 6] or [[0] * 6]  # which has no area
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    size = list(segmentation['size'])
    if size != [height, width]:
        raise UserError(
            f'{where}: a mask of {size[1]} x {size[0]} pixels in an image of {width} x {height}: correct it'
        )
    if isinstance(segmentation['counts'], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def parts_of(segmentation: Any, height: int, width: int, where: str = '') -> list[np.ndarray]:
    """The parts of an object, each (p, 2); arguments are those of :func:`run_lengths`.

    Raises:
        UserError: As there.
    """
    if isinstance(segmentation, list):
        return [np.asarray(part, np.float64).reshape(-1, 2) for part in segmentation if len(part) >= 6]
    mask = coco_mask.decode(run_lengths(segmentation, height, width, where))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.reshape(-1, 2).astype(np.float64) for contour in contours]


def resampled(polygon: np.ndarray, count: int) -> np.ndarray:
    """A closed polygon (p, 2) as ``count`` points, its corners and others evenly between them."""
    closed = np.concatenate([polygon, polygon[:1]])
    corners = np.arange(len(closed))
    places = np.linspace(0, len(closed) - 1, count - len(closed))
    places = np.insert(places, np.searchsorted(places, corners), corners)
    return np.stack([np.interp(places, corners, closed[:, axis]) for axis in (0, 1)], 1).astype(np.float32)


def small_mask(points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The mask of an outline in a quarter of the image: drawn in full size, then reduced.

    Only the part with the object is drawn.

    Args:
        points: Of the outline, (P, 2).
        height: Of the image.
        width: Of the image.

    Returns:
        Mask, 0 or 1, uint8; and the row and column of its first pixel.
    """
    corners = points.astype(np.int32)
    low = np.clip(corners.min(0), 0, (width, height)) // RATIO
    high = np.clip(-(-(corners.max(0) + 1) // RATIO), low, (width // RATIO, height // RATIO))
    columns, rows = (high - low).tolist()
    if not rows or not columns:
        return np.zeros((0, 0), np.uint8), (0, 0)
    whole = np.zeros((rows * RATIO, columns * RATIO), np.uint8)
    cv2.fillPoly(whole, [corners - low * RATIO], 1)
    return cv2.resize(whole, (columns, rows)), (int(low[1]), int(low[0]))


def visible_box(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Corners of the box around the part of an outline that is inside of the image; zeros where there is none.

    Its bounds are those of the points inside, of the places where an edge crosses a border, and of the corners of the
    image that the outline contains.

    Args:
        points: (P, 2).
        width: Of the image.
        height: Of the image.

    Example:
        >>> visible_box(np.array([[-5, 5], [5, -5], [15, 5], [5, 15.0]]), 10, 10).tolist()
        [0.0, 0.0, 10.0, 10.0]
    """
    size = np.array([width, height], points.dtype)
    low, high = points.min(0), points.max(0)
    if (low >= 0).all() and (high <= size).all():
        return np.concatenate([low, high])
    if (high < 0).any() or (low > size).any():
        return np.zeros(4, points.dtype)
    found = [points[((points >= 0) & (points <= size)).all(1)]]
    after = np.roll(points, -1, 0)
    for axis in (0, 1):
        for border in (0, size[axis]):
            apart = (points[:, axis] - border) * (after[:, axis] - border) <= 0
            start, way = points[apart], (after - points)[apart]
            moving = way[:, axis] != 0
            share = (border - start[moving, axis]) / way[moving, axis]
            crossing = start[moving] + share[:, None] * way[moving]
            crossing[:, axis] = border
            across = crossing[:, 1 - axis]
            found.append(crossing[(across >= 0) & (across <= size[1 - axis])])
    contour = points.astype(np.float32)
    corners = size * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    found.append(corners[[cv2.pointPolygonTest(contour, tuple(map(float, c)), False) >= 0 for c in corners]])
    every = np.concatenate(found)
    return np.concatenate([every.min(0), every.max(0)]) if len(every) else np.zeros(4, points.dtype)
