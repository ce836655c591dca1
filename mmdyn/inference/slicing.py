"""Detection in tiles of large images, by the slicer of supervision."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdyn.errors import UserError

from .onnx_detector import Detections, Limits, around, corners_of

CORNERS = 'xyxyxyxy'  # of oriented boxes, by supervision's name
SHARE = 0.5  # of the smaller of two boxes, inside the other: from this they become one, as a tile may cut an object


class SlicedDetector:
    """A detector that also looks at tiles of an image in their own resolution, so that it sees small objects.

    The tiles overlap. Of their detections and those of the whole image, boxes of a class that share half of the smaller
    one become one box around both, as in SAHI (Akyon et al., 2022, https://arxiv.org/abs/2202.06934). Of oriented boxes
    that do so, the one with the highest score stays.

    Args:
        detector: The detector.
        size: Height and width of a tile in pixels.
        overlap: Share of a tile that its neighbour has, too.

    Raises:
        UserError: A value is invalid, or supervision is not installed.
    """

    def __init__(self, detector: Any, size: int, overlap: float) -> None:
        if size < 32:
            raise UserError(f'invalid size of tiles {size}: set 32 pixels or more')
        if not 0 <= overlap < 1:
            raise UserError(f'invalid overlap of tiles {overlap:g}: set a share from 0 to less than 1')
        try:
            import supervision  # noqa: F401
        except ImportError as e:
            raise UserError('tiles need the package supervision: pip install supervision') from e
        self.detector, self.size, self.overlap = detector, size, overlap
        self.names, self.channels, self.to_float32 = detector.names, detector.channels, detector.to_float32
        self.skeleton: Sequence[Sequence[int]] = ()  # detections have no keypoints

    def __call__(
        self,
        images: Sequence[np.ndarray],
        score: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
    ) -> list[Detections]:
        """Detect in each image; arguments as for :class:`mmdyn.inference.checkpoint_detector.CheckpointDetector`."""
        limits = Limits(score, iou, max_detections, classes, agnostic)
        return [self._detect(image, limits) for image in images]

    def check_limits(self, limits: Limits) -> None:
        """Refuse what the detector cannot do."""
        self.detector.check_limits(limits)

    def _detect(self, image: np.ndarray, limits: Limits) -> Detections:
        import supervision as sv

        def look(tile: np.ndarray) -> Any:
            [found] = self.detector([np.ascontiguousarray(tile)], *limits)
            if found.masks is not None or found.keypoints is not None:
                raise UserError(
                    'masks and keypoints are not merged across tiles: omit --slice, or take a model of detection'
                )
            boxes = found.boxes.reshape(-1, 4).clip(0, [*tile.shape[1::-1]] * 2)
            turned = found.oriented_boxes
            data = {} if turned is None else {CORNERS: corners_of(turned), 'turned': turned.reshape(-1, 5)}
            return sv.Detections(boxes, confidence=found.scores, class_id=found.labels, data=data)

        slicer = sv.InferenceSlicer(look, self.size, round(self.size * self.overlap), sv.OverlapFilter.NONE)
        merged = sv.Detections.merge([look(image), slicer(image)])
        if not len(merged):
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        if CORNERS in merged.data:
            return _best_oriented(merged, limits)
        count = 0
        while count != len(merged):  # boxes that have grown may share more with others
            count, merged = len(merged), merged.with_nmm(SHARE, limits.agnostic, sv.OverlapMetric.IOS)
        scores, labels = np.asarray(merged.confidence), np.asarray(merged.class_id)
        best = np.argsort(-scores, kind='stable')[: limits.max_detections]
        return Detections(merged.xyxy[best], scores[best], labels[best])


def _best_oriented(merged: Any, limits: Limits) -> Detections:
    """The oriented boxes of all tiles without those that share much with one of a higher score."""
    from mmdyn.metrics.oriented_iou import intersections

    corners = np.asarray(merged.data[CORNERS])
    boxes = np.concatenate([corners.mean(1), np.asarray(merged.data['turned'])[:, 2:]], 1)
    scores, labels = np.asarray(merged.confidence), np.asarray(merged.class_id)
    order = np.argsort(-scores, kind='stable')
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    smaller = np.minimum.outer(*[boxes[:, 2:4].prod(1)] * 2)
    rivals = intersections(boxes, boxes) > SHARE * smaller
    if not limits.agnostic:
        rivals &= labels[:, None] == labels
    kept: list[int] = []
    for i in range(len(boxes)):
        if not rivals[i, kept].any():
            kept.append(i)
    kept = kept[: limits.max_detections]
    return Detections(around(corners[order[kept]]), scores[kept], labels[kept], oriented_boxes=boxes[kept])
