"""Tracking: the objects of consecutive predictions get numbers, by the package ``trackers``."""

import inspect
from collections import defaultdict
from typing import Any

import numpy as np
import torch

from mmdyn.errors import UserError

from .onnx_detector import viewable
from .prediction import Prediction

TRACKERS = {
    'bytetrack': 'ByteTrackTracker',
    'botsort': 'BoTSORTTracker',
    'ocsort': 'OCSORTTracker',
    'cbiou': 'CBIoUTracker',
    'sort': 'SORTTracker',
}
# Scores from which a detection is sure, and begins a track. IDF1 of ByteTrack, an average of four videos of moving
# digits: 0.75 with 0.25, 0.93 with 0.5, 0.89 with the package's own.
SURE = dict(track_activation_threshold=0.5, high_conf_det_threshold=0.5)
USES_PIXELS = ('botsort',)
OVERLAP = 0.7
TRAIL = 50  # frames that a trail goes back
FORGOTTEN = 1000  # frames after which an object's trail is dropped
INSTALL = 'pip install trackers supervision'


class Tracks:
    """Numbers of objects from frame to frame.

    Args:
        tracker: A key of ``TRACKERS``.
        fps: Frames per second.
        options: Arguments of the tracker's class in the package ``trackers``, which take the place of ours.

    Raises:
        UserError: The package is missing, or there is no such tracker or argument.
    """

    def __init__(self, tracker: str, fps: float, options: dict[str, Any] | None = None) -> None:
        if tracker not in TRACKERS:
            raise UserError(f'there is no tracker {tracker!r}: set {", ".join(TRACKERS)}')
        try:
            import trackers
        except ImportError as e:
            raise UserError(f'tracking needs the package trackers: {INSTALL}') from e
        kind = getattr(trackers, TRACKERS[tracker])
        known = inspect.signature(kind).parameters
        unknown = [name for name in options or {} if name not in known]
        if unknown:
            raise UserError(f'{tracker} has no option {unknown[0]}: set {", ".join(known)}')
        ours = {key: value for key, value in dict(SURE, frame_rate=fps).items() if key in known}
        self.tracker = kind(**ours | (options or {}))
        self.uses_pixels = tracker in USES_PIXELS
        self.trails: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self.seen: dict[int, int] = {}  # the last frame of each object
        self.frames = 0

    def follow(self, prediction: Prediction) -> Prediction:
        """Number the objects of the next frame.

        Args:
            prediction: Prediction of the frame.

        Returns:
            The same prediction with the objects that are tracked; the others are left out. ``instances_id`` has their
            numbers, and ``trails`` their centres in the last frames.
        """
        import supervision as sv

        boxes, scores, labels, *_ = prediction.detections()
        found = sv.Detections(
            boxes.reshape(-1, 4).astype(np.float32),
            confidence=scores,
            class_id=labels,
            data=dict(index=np.arange(len(boxes))),
        )
        found = found.with_nms(OVERLAP, class_agnostic=True)  # an object that is found in two classes is one
        tracked = self.tracker.update(found, viewable(prediction.image) if self.uses_pixels else None)
        ids = np.asarray(tracked.tracker_id if len(tracked) else [], np.int64)
        index = np.asarray(tracked.data.get('index', []) if len(tracked) else [], np.int64)
        sure = ids >= 0  # -1: not seen often enough
        prediction.pred_instances = prediction.pred_instances[torch.from_numpy(index[sure])]
        numbers = ids[sure] + 1  # as in the files of the MOT challenge, from 1
        prediction.pred_instances.instances_id = torch.from_numpy(numbers)
        for number, box in zip(numbers.tolist(), boxes[index[sure]], strict=True):
            self.trails[number].append((box[:2] + box[2:]) / 2)
            del self.trails[number][:-TRAIL]
            self.seen[number] = self.frames
        for number in [n for n, last in self.seen.items() if last < self.frames - FORGOTTEN]:
            del self.trails[number], self.seen[number]
        self.frames += 1
        prediction.set_metainfo(dict(trails={n: np.array(self.trails[n]) for n in numbers.tolist()}))
        return prediction
