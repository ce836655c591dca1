"""Oriented boxes of objects whose corners or outlines are known, and their corners through the steps of a pipeline.

An oriented box is five numbers: its centre, the longer and the shorter side in pixels, and the angle in radians by
which the longer one is turned from the x axis towards the y axis, from -pi / 4 to 3 pi / 4.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mmdyn.annotations import Annotations

from .outlines import Outlines, parts_of

MIN_AREA = 1e-6  # square pixels


def oriented_box(points: np.ndarray) -> np.ndarray:
    """The smallest rectangle around points (P, 2) as five numbers.

    Example:
        >>> oriented_box(np.array([[0, 0], [4, 0], [4, 10], [0, 10.0]])).round(4).tolist()
        [2.0, 5.0, 10.0, 4.0, 1.5708]
    """
    (x, y), (width, height), degrees = cv2.minAreaRect(np.asarray(points, np.float32))
    angle = np.deg2rad(degrees)
    if width < height:
        width, height, angle = height, width, angle + np.pi / 2
    return np.array([x, y, width, height, (angle + np.pi / 4) % np.pi - np.pi / 4])


def corners_of_instance(instance: Mapping[str, Any], height: int, width: int, image: str) -> np.ndarray:
    """The corners or outline (P, 2) of an object of a data set; those of its upright box where it has none.

    A group of objects (``iscrowd``) may have none: a data set leaves out other objects without.

    Args:
        instance: The object, as ``get_data_info`` gives it.
        height: Of the image.
        width: Of the image.
        image: Its name, for messages.
    """
    parts = parts_of(instance['mask'], height, width, image) if instance.get('mask') else []
    return np.concatenate(parts) if parts else _upright_corners(*instance['bbox'])


def _upright_corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def boxes_of(annotations: Annotations) -> np.ndarray:
    """The oriented boxes of all objects, (N, 5): around their corners, outlines or masks; upright where there are none.

    Args:
        annotations: Read with their outlines.
    """
    boxes = np.zeros((len(annotations.boxes), 5))
    for i, (image, (left, top, width, height)) in enumerate(
        zip(annotations.image_of_object, annotations.boxes, strict=True)
    ):
        across, down = annotations.sizes[image].tolist()
        segmentation = annotations.segmentation(i)
        parts = parts_of(segmentation, down, across, annotations.files[image]) if segmentation else []
        corners = _upright_corners(left, top, left + width, top + height)
        boxes[i] = oriented_box(np.concatenate(parts) if parts else corners)
    return boxes


def quadrilaterals(annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Which objects have four corners and nothing else, (m,), and the corners, (m, 4, 2)."""
    if annotations.segmentations is not None:
        parts = [annotations.segmentation(i) for i in range(len(annotations.boxes))]
        found = [i for i, p in enumerate(parts) if isinstance(p, list) and [len(each) for each in p] == [8]]
        return np.array(found, int), np.array([parts[i] for i in found], float).reshape(-1, 4, 2)
    rows = np.flatnonzero(np.diff(annotations.point_starts) == 4)
    return rows, annotations.points[annotations.point_starts[rows, None] + np.arange(4)]


def corners_cross(corners: np.ndarray) -> np.ndarray:
    """Whether two sides of quadrilaterals (m, 4, 2) cross, as where corners are not in turn, (m,).

    Example:
        >>> corners_cross(np.array([[[0, 0], [4, 4], [4, 0], [0, 4]], [[0, 0], [4, 0], [4, 4], [0, 4]]])).tolist()
        [True, False]
    """
    turns = np.sign(_turns(corners))
    return ((turns > 0).sum(1) == 2) & ((turns < 0).sum(1) == 2)


def on_a_line(corners: np.ndarray) -> np.ndarray:
    """Whether the corners of quadrilaterals (m, 4, 2) have no area between them, (m,)."""
    return (np.abs(_turns(corners)) < MIN_AREA).all(1)


def _turns(corners: np.ndarray) -> np.ndarray:
    """Cross product of the sides before and after every corner, (m, 4)."""
    before, after = corners - np.roll(corners, 1, 1), np.roll(corners, -1, 1) - corners
    return before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]


class OrientedOutlines(Outlines):
    """Corners of objects that become oriented boxes: where a border cuts one, its direction stays.

    As in version 8.4 of the original (https://docs.ultralytics.com/tasks/obb), what is left is the rectangle in the
    direction of the whole object around its visible part.

    Example:
        >>> outlines = OrientedOutlines.of([np.array([[-4, 0], [8, 0], [8, 4], [-4, 4.0]])], 20, 20)
        >>> outlines.clipped(np.zeros((1, 4))).oriented_boxes().round(2).tolist()
        [[4.0, 2.0, 8.0, 4.0, 0.0]]
    """

    @classmethod
    def of(cls, polygons: Sequence[np.ndarray], height: int, width: int) -> 'OrientedOutlines':
        """Those of polygons with any number of corners, each (p, 2), which stay as they are."""
        count = max([4, *map(len, polygons)])
        points = [np.pad(polygon, ((0, count - len(polygon)), (0, 0)), 'edge') for polygon in polygons]
        return cls(np.array(points, np.float32).reshape(-1, count, 2), height, width)

    def clipped(self, boxes: np.ndarray) -> 'OrientedOutlines':
        """The part of every object inside of the image; the boxes do not matter."""
        size = np.array([self.width, self.height], np.float32)
        points = self.points.copy()
        for row in np.flatnonzero(((points < 0) | (points > size)).any((1, 2))):
            points[row] = self._visible(points[row], size)
        return OrientedOutlines(points, self.height, self.width)

    def _visible(self, points: np.ndarray, size: np.ndarray) -> np.ndarray:
        """The rectangle around the visible part of an outline (P, 2), its corners repeated; zeros if there is none."""
        canvas = (size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])).astype(np.float32)
        area, visible = cv2.intersectConvexConvex(cv2.convexHull(points), canvas)
        if visible is None or area <= 0:
            return np.zeros_like(points)
        angle = oriented_box(points)[4]
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
        aligned = visible.reshape(-1, 2) @ axes
        (left, top), (right, bottom) = aligned.min(0), aligned.max(0)
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32) @ axes.T
        return np.pad(corners, ((0, len(points) - 4), (0, 0)), 'edge')

    def oriented_boxes(self) -> np.ndarray:
        """The smallest rectangles around the corners, (n, 5)."""
        return np.array([oriented_box(each) for each in self.points]).reshape(-1, 5)
