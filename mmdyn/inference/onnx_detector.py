"""Detect objects with an exported ONNX file: numpy, opencv-python and onnxruntime, nothing else.

This file imports nothing of mmdyn, so that it can be copied to where the detector runs::

    python onnx_detector.py model.onnx image.jpg     # writes image.detected.jpg, prints the boxes

Files of segmentation, of poses and of oriented boxes give masks, keypoints and turned boxes, too; those of
classification give the best classes of the whole image, and no boxes::

    detector = OnnxDetector('model.onnx')
    for box, score, label in zip(*detector(cv2.imread('image.jpg'))[:3]): ...
    masks = detector(cv2.imread('image.jpg')).masks  # of a file of segmentation
    scores, labels = detector(cv2.imread('image.jpg'))[1:3]  # of a file of classification
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

RunFunction = Callable[[np.ndarray], list[np.ndarray]]  # images -> outputs of the graph
MAX_CANDIDATES = 30000  # before NMS
# How the command line reads images, by channels; others as they are.
FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}
# Metadata of a file, each as JSON: class names, the largest stride, the long side that images are resized to, whether
# they are padded to one size, images at a time (null: any), how they are normalised, whether NMS is in the graph.
KEYS: tuple[str, ...] = ('names', 'stride', 'long_side', 'square', 'batch', 'mean', 'std', 'bgr_to_rgb', 'pad_value')
KEYS += ('nms', 'iou_threshold', 'score_threshold', 'max_detections')
# Metadata that files of earlier versions lack: channels, whether 16 bits are kept, height and width to fit into.
# The task; of poses the number of keypoints, and pairs of them for pictures.
LATER: dict[str, Any] = {'channels': 3, 'to_float32': False, 'size': None}
LATER |= {'task': 'detect', 'keypoint_shape': None, 'skeleton': ()}
LATER |= {'resize': None}  # of a classifier, pixels of the shorter side before the centre is taken
# The first outputs of a graph; the metadatum 'outputs' names all.
PLAIN, WITH_NMS = ['boxes', 'scores'], ['dets', 'labels']
BEST_CLASSES = 5  # that a classifier names
MASK_STRIDE = 4  # pixels of the network's image for a number of a mask


class Detections(NamedTuple):
    """The detections of one image, or its classes, best first."""

    boxes: Any  # (n, 4), left, top, right, bottom in pixels; None where a model classifies the whole image
    scores: np.ndarray  # (n,)
    labels: np.ndarray  # (n,), indices of class names
    # (n, height, width) bool, or before restore() logits of a quarter of the size; None where a model has no masks
    masks: Any = None
    keypoints: Any = None  # (n, K, 2) in pixels; None where a model has no keypoints
    keypoint_scores: Any = None  # (n, K), whether each is there
    # (n, 5), centre, width and height in pixels, and angle in radians, clockwise; None where boxes are upright
    oriented_boxes: Any = None


class Limits(NamedTuple):
    """Which detections are kept."""

    score: float | None = None  # of a detection, more than this; None takes 0.25, of a classifier 0
    iou: float | None = None  # overlap above which NMS drops the lower of two boxes; None takes the exported value
    max_detections: int | None = None  # of an image; None takes the exported value
    classes: Sequence[int] | None = None  # indices; None keeps all
    agnostic: bool = False  # NMS among the boxes of all classes, not within each


class LimitError(ValueError):
    """A limit that a file with NMS in its graph cannot keep."""


class Placement(NamedTuple):
    """Scale and padding of an image in the input of the graph."""

    scale: tuple[float, float]  # horizontal, vertical
    left: float
    top: float


def output_names(texts: dict[str, str]) -> list[str]:
    """Names of the outputs of a graph with these metadata."""
    stated = json.loads(texts.get('outputs', 'null'))
    return stated or (WITH_NMS if json.loads(texts.get('nms', 'false')) else PLAIN)


class OnnxDetector:
    """A detector from a file that ``tools/export.py`` wrote.

    Args:
        path: The file.
        threads: Threads of the runtime; None takes its default.

    Raises:
        ValueError: The file does not load, or was not written by mmdyn.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = str(path)
        self.run, texts = self._load(threads)
        missing = [key for key in KEYS if key not in texts]
        if missing:
            raise ValueError(f'{path} was not exported by mmdyn (tools/export.py): its metadata lack {missing[0]!r}')
        try:
            self.meta: dict[str, Any] = LATER | {key: json.loads(texts[key]) for key in (*KEYS, *LATER) if key in texts}
            self.names: list[str] = [str(name) for name in self.meta['names']]
        except (ValueError, TypeError) as e:
            raise ValueError(f'{path} has metadata that cannot be read: {e}') from e
        self.channels: int = self.meta['channels']
        self.to_float32: bool = self.meta['to_float32']  # 16 bits are kept, as float32 from 0 to 255
        self.size: list[int] = self.meta['size'] or [self.meta['long_side']] * 2  # height and width to fit into
        self.skeleton: Sequence[Sequence[int]] = self.meta['skeleton']  # of keypoints, in pictures
        self.outputs = output_names(texts)
        self.classifies: bool = self.meta['task'] == 'classify'

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        """The graph as a function, and its metadata."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(self.path, options, onnxruntime.get_available_providers())
        except Exception as e:  # the runtime's own exceptions have no other common base class
            raise ValueError(f'{self.path} does not load in ONNX Runtime: {str(e).splitlines()[0]}') from e
        texts = session.get_modelmeta().custom_metadata_map
        return lambda images: session.run(None, {session.get_inputs()[0].name: images}), dict(texts)

    def __call__(
        self,
        image: np.ndarray | Sequence[np.ndarray],
        score: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
    ) -> Any:
        """Detect in one image, or in each of a list; or classify them.

        Args:
            image: Array (H, W, channels) from 0 to 255, as OpenCV reads it: BGR for three channels; or a list.
            score: As all that follow, which detections are kept: see :class:`Limits`. With NMS in the graph, the score
                threshold and the number of detections of the export apply, too.
            iou: Overlap for NMS.
            max_detections: Most detections of an image.
            classes: Indices of classes.
            agnostic: NMS among all classes.

        Returns:
            Detections, or a list of them.

        Raises:
            LimitError: NMS is in the graph, and differs in ``iou``, ``agnostic`` or ``max_detections``; or a limit of
                boxes is set for a classifier.
        """
        if isinstance(image, np.ndarray):
            return self([image], score, iou, max_detections, classes, agnostic)[0]
        limits = Limits(score, iou, max_detections, classes, agnostic)
        detections: list[Detections] = []
        size = (self.meta['batch'] or len(image)) if self.meta['square'] else 1
        for start in range(0, len(image), max(size, 1)):
            part = image[start : start + size]
            tensors, placements = zip(*(self.prepare(one) for one in part))
            each = self.detect(np.concatenate(tensors), limits)
            detections += [restore(d, p, one.shape[:2]) for d, p, one in zip(each, placements, part)]
        return detections

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, Placement]:
        """Resize, pad and normalise: (H, W, channels) -> (1, channels, height, width) float32."""
        if self.classifies:
            crop = centre_crop(image, self.meta['resize'] or self.size[0], self.size[0])
            return self._normalise(crop), Placement((1.0, 1.0), 0.0, 0.0)
        stride, pad = self.meta['stride'], self.meta['pad_value']
        height, width = image.shape[:2]
        ratio = min(self.size[0] / height, self.size[1] / width)
        new = [min(math.ceil(side * ratio), limit) for side, limit in zip((height, width), self.size)]
        if ratio != 1:
            image = cv2.resize(image, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
        full = self.size if self.meta['square'] else [math.ceil(side / stride) * stride for side in new]
        top, left = (round((whole - side) // 2 - 0.1) for whole, side in zip(full, new))
        borders = top, full[0] - new[0] - top, left, full[1] - new[1] - left
        image = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=[pad] * 4)
        image = image.reshape(*full, -1)  # OpenCV drops a single channel
        return self._normalise(image), Placement((new[1] / width, new[0] / height), left, top)

    def _normalise(self, image: np.ndarray) -> np.ndarray:
        """(height, width, channels) -> (1, channels, height, width) float32."""
        pixels = image[..., ::-1] if self.meta['bgr_to_rgb'] else image
        mean, std = (np.array(self.meta[key], np.float32) for key in ('mean', 'std'))
        return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None])

    def detect_all(self, images: np.ndarray, limits: Limits) -> list[Detections]:
        """As :meth:`detect`, of any number of images."""
        size = self.meta['batch'] or len(images)
        return [one for i in range(0, len(images), size) for one in self.detect(images[i : i + size], limits)]

    def detect(self, images: np.ndarray, limits: Limits) -> list[Detections]:
        """Detect in a prepared batch, which is padded if the graph has a fixed batch size.

        Args:
            images: (B, channels, H, W) float32.
            limits: Which detections are kept.

        Returns:
            One item per image, in pixels of ``images``; :func:`restore` carries it to the original image.

        Raises:
            ValueError: There are too many images, or, as :class:`LimitError`, the NMS of the graph differs.
        """
        count, batch = len(images), self.meta['batch'] or len(images)
        if count > batch:
            raise ValueError(f'{self.path} takes {batch} images at a time, got {count}')
        self.check_limits(limits)
        if count < batch:
            images = np.concatenate((images, np.zeros((batch - count, *images.shape[1:]), images.dtype)))
        outputs = self.run(images)
        if self.classifies:
            return [best_classes(scores, limits) for scores in outputs[0][:count]]
        detections = []
        for index in range(count):
            first, second, *others = (output[index] for output in outputs)
            if self.meta['nms']:
                wanted = second >= 0 if limits.classes is None else np.isin(second, limits.classes)
                rows = np.flatnonzero((first[:, -1] > threshold(limits)) & wanted)[: limits.max_detections]
                boxes, scores, labels = first[rows, :-1], first[rows, -1], second[rows]
            else:
                rows, scores, labels = self.select(first, second, limits)
                boxes = first[rows]
            extras = dict(zip(self.outputs[2:], others))
            fields = fields_of(extras, rows)
            if boxes.shape[1] == 5:
                fields['oriented_boxes'], boxes = boxes, around(corners_of(boxes))
            detections.append(Detections(boxes, scores, labels, **fields))
        return detections

    def check_limits(self, limits: Limits) -> None:
        """Refuse what the NMS in the graph, if there is one, cannot do, and limits of boxes for a classifier.

        Raises:
            LimitError: ``iou``, ``agnostic`` or ``max_detections`` differ from it.
        """
        if self.classifies:
            refuse_limits_of_boxes(limits)
        if not self.meta['nms']:
            return
        most, fixed = self.meta['max_detections'], self.meta['iou_threshold']
        cure = 'omit it, or export the file without NMS'
        if limits.iou not in (None, fixed):
            raise LimitError(f'invalid iou {limits.iou}: the NMS in {self.path} is fixed at {fixed}; {cure}')
        if limits.agnostic:
            raise LimitError(f'the NMS in {self.path} is within each class, not among all; {cure}')
        if limits.max_detections is not None and limits.max_detections > most:
            raise LimitError(f'invalid number of detections {limits.max_detections}: {self.path} gives {most}; {cure}')

    def select(
        self, boxes: np.ndarray, scores: np.ndarray, limits: Limits
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """NMS, within each class or among all; of oriented boxes Fast NMS by ProbIoU, as in PyTorch.

        Args:
            boxes: (N, 4) or (N, 5).
            scores: (N, classes).
            limits: Which detections are kept.

        Returns:
            Rows of ``boxes`` by falling score, scores and labels, (n,) each.
        """
        if limits.classes is not None:
            scores = np.where(np.isin(np.arange(scores.shape[1]), limits.classes), scores, 0)
        indices, labels = np.nonzero(scores > threshold(limits))
        values: Any = scores[indices, labels]
        best = np.argsort(-values, kind='stable')[:MAX_CANDIDATES]
        indices, labels, values = indices[best], labels[best], values[best]
        corners = boxes[indices].astype(np.float64)
        iou = self.meta['iou_threshold'] if limits.iou is None else limits.iou
        order: Any
        groups: Any = np.zeros_like(labels, np.int32) if limits.agnostic else labels.astype(np.int32)
        if boxes.shape[1] == 5:
            order = np.flatnonzero(~overlaps_a_better_one(corners, groups, iou))
        else:
            sides: Any = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
            order = cv2.dnn.NMSBoxesBatched(sides, values, groups, 0.0, iou) if len(values) else []
        kept = np.array(order, int)[: limits.max_detections or self.meta['max_detections']]
        return indices[kept], values[kept], labels[kept]


def threshold(limits: Limits) -> float:
    """The least score of a detection."""
    return 0.25 if limits.score is None else limits.score


def refuse_limits_of_boxes(limits: Limits) -> None:
    """Refuse limits that mean nothing for a classifier.

    Raises:
        LimitError: ``iou`` or ``agnostic`` is set.
    """
    if limits.iou is not None or limits.agnostic:
        name = 'iou' if limits.iou is not None else 'agnostic'
        raise LimitError(f'{name} is a limit of boxes, and a classifier has none: omit it')


def best_classes(scores: np.ndarray, limits: Limits) -> Detections:
    """The classes of an image, best first, by their scores (C,): five, or as many as the limits say."""
    wanted = np.arange(len(scores)) if limits.classes is None else np.asarray(limits.classes, int)
    labels = wanted[scores[wanted] > (limits.score or 0.0)]
    labels = labels[np.argsort(-scores[labels], kind='stable')][: limits.max_detections or BEST_CLASSES]
    return Detections(None, scores[labels], labels)


def centre_crop(image: np.ndarray, resize: int, side: int) -> np.ndarray:
    """The square in the centre of a resized image, as Pillow's bilinear filter makes it within a level of 255.

    The filter averages where an image becomes smaller. Only the pixels of the square are computed.

    Args:
        image: (H, W, channels).
        resize: Pixels of the shorter side of the resized image.
        side: Pixels of the square; beyond a smaller image it is black.

    Returns:
        (side, side, channels).
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    for axis, before in ((1, width), (0, height)):
        after = resize if before == shorter else int(resize * before / shorter)
        border = max(side - after, 0)
        first = 0 if border else round((after - side) / 2)
        image = _resize_side(image, axis, after, range(first, first + side - border))
        borders = [(border // 2, border - border // 2) if i == axis else (0, 0) for i in range(3)]
        image = np.pad(image, borders) if border else image
    return image


def _resize_side(image: np.ndarray, axis: int, after: int, wanted: range) -> np.ndarray:
    """The wanted rows (axis 0) or columns (axis 1) of an image whose side is resized to ``after`` pixels.

    Each is a mean of those below a triangle around it.
    """
    before = image.shape[axis]
    scale = before / after
    reach = max(scale, 1.0)
    parts = []
    for centre in ((i + 0.5) * scale for i in wanted):
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), before)
        weights = np.maximum(1 - np.abs(np.arange(first, last) + 0.5 - centre) / reach, 0)
        window = image[first:last] if axis == 0 else image[:, first:last]
        parts.append(np.tensordot(window.astype(np.float32), (weights / weights.sum()).astype(np.float32), (axis, 0)))
    mixed = np.stack(parts, axis)
    return np.floor(mixed + 0.5).astype(np.uint8) if image.dtype == np.uint8 else mixed


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Corners of oriented boxes (n, 5) in turn, (n, 4, 2)."""
    boxes = np.asarray(boxes).reshape(-1, 5)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack([cos, sin], 1) * boxes[:, 2:3] / 2
    across = np.stack([-sin, cos], 1) * boxes[:, 3:4] / 2
    centre = boxes[:, :2]
    turns = [centre - along - across, centre + along - across, centre + along + across, centre - along + across]
    return np.stack(turns, 1)


def around(corners: np.ndarray) -> np.ndarray:
    """The upright boxes around corners (n, 4, 2), (n, 4)."""
    return np.concatenate([corners.min(1), corners.max(1)], 1)


def prob_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Overlap of oriented boxes (n, 5) and (m, 5) as Gaussians, (n, m): ProbIoU, https://arxiv.org/abs/2106.06072."""
    eps = 1e-7
    one, other = (_covariances(each) for each in (boxes, others))
    xx, yy, xy = (a[:, None] + b[None] for a, b in zip(one, other))
    dx, dy = ((boxes[:, None, i] - others[None, :, i]) for i in (0, 1))
    joint = (xx * yy - xy**2).clip(0)  # rounding may take that of lines below
    apart = (xx * dy**2 + yy * dx**2) / (joint + eps) / 4 - xy * dx * dy / (joint + eps) / 2
    own, theirs = ((a * b - c**2).clip(0) for a, b, c in (one, other))
    shape = np.log(joint / (4 * np.sqrt(own[:, None] * theirs[None]) + eps) + eps) / 2
    return 1 - np.sqrt(1 - np.exp(-(apart + shape).clip(eps, 100)) + eps)


def _covariances(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances along x and y, and covariance, of oriented boxes (n, 5), (n,) each."""
    along, across = (boxes[:, 2:4] ** 2 / 12).T
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return along * cos**2 + across * sin**2, along * sin**2 + across * cos**2, (along - across) * cos * sin


def overlaps_a_better_one(boxes: np.ndarray, groups: np.ndarray, iou: float) -> np.ndarray:
    """Fast NMS: which oriented boxes (n, 5), by falling score, overlap one before them of the same group, (n,) bool."""
    dropped = np.zeros(len(boxes), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        for start in range(0, len(rows), 512):  # so many overlaps are in memory
            part = rows[start : start + 512]
            overlaps = prob_iou(boxes[rows[: start + 512]], boxes[part])
            dropped[part] = (np.triu(overlaps, 1 - start) > iou).any(0)
    return dropped


def fields_of(extras: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of :class:`Detections` beside boxes, scores and labels.

    Args:
        extras: What the graph gave for an image beside boxes and scores, by name.
        rows: Of the detections.
    """
    fields: dict[str, np.ndarray] = {}
    if 'prototypes' in extras:
        prototypes = extras['prototypes']  # (C, h, w)
        logits = extras['coefficients'][rows] @ prototypes.reshape(len(prototypes), -1)
        fields['masks'] = logits.reshape(-1, *prototypes.shape[1:])
    if 'masks' in extras:
        fields['masks'] = extras['masks'][rows]
    if 'keypoints' in extras:
        points = extras['keypoints'][rows]  # (n, K, 3)
        fields['keypoints'], fields['keypoint_scores'] = points[..., :2], points[..., 2]
    return fields


def restore(detections: Detections, placement: Placement, size: tuple[int, int], clip: bool = True) -> Detections:
    """Detections in pixels of the original image of this height and width; classes stay as they are."""
    if detections.boxes is None:
        return detections
    corner, scale = (np.array(v, np.float32) for v in ((placement.left, placement.top), placement.scale))
    boxes = (detections.boxes - np.tile(corner, 2)) / np.tile(scale, 2)
    if detections.oriented_boxes is not None:
        turned = detections.oriented_boxes.astype(np.float32)
        centres, sides = (turned[:, :2] - corner) / scale, turned[:, 2:4] / scale.min()
        turned = np.concatenate([centres, sides, turned[:, 4:]], 1)
        detections, boxes = detections._replace(oriented_boxes=turned), around(corners_of(turned))
    detections = detections._replace(boxes=boxes.clip(0, [size[1], size[0]] * 2) if clip else boxes)
    if detections.keypoints is not None:
        points = (detections.keypoints - corner) / scale
        detections = detections._replace(keypoints=points.clip(0, [size[1], size[0]]))
    if detections.masks is not None:
        detections = detections._replace(masks=enlarge(detections.masks, placement, size, detections.boxes))
    return detections


def enlarge(logits: np.ndarray, placement: Placement, size: tuple[int, int], boxes: np.ndarray) -> np.ndarray:
    """Masks of an image: logits without padding, enlarged, then thresholded, then cropped by the boxes.

    Args:
        logits: (n, h, w), of a quarter of the network's image.
        placement: Of the image in that of the network.
        size: Height and width of the image.
        boxes: (n, 4) in pixels of the image.

    Returns:
        (n, height, width) bool.
    """
    masks = np.zeros((len(logits), *size), bool)
    sides = [round(side * scale) for side, scale in zip(size, placement.scale[::-1])]  # in the network's image
    edges = [int(placement.top), int(placement.left)]
    spans = [(edge, edge + side) for edge, side in zip(edges, sides)]
    # so large that the padding ends between two numbers
    factor = next(f for f in (1, 2, MASK_STRIDE) if not any(end * f % MASK_STRIDE for span in spans for end in span))
    rows, columns = (slice(*(end * factor // MASK_STRIDE for end in span)) for span in spans)
    for mask, logit, box in zip(masks, logits, boxes):
        logit = logit.astype(np.float32)
        if factor > 1:
            logit = cv2.resize(logit, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        logit = cv2.resize(logit[rows, columns], size[::-1], interpolation=cv2.INTER_LINEAR)
        inside = [np.clip(np.ceil([box[i], box[i + 2]]), 0, None).astype(int) for i in (1, 0)]
        window = slice(*inside[0]), slice(*inside[1])
        mask[window] = logit[window] > 0
    return masks


def captions(detections: Detections, names: Sequence[str]) -> list[str]:
    """Class name and score of every detection."""
    return [f'{names[label]} {score:.2f}' for score, label in zip(detections.scores, detections.labels)]


def draw(
    image: np.ndarray,
    detections: Detections,
    texts: Sequence[str],
    skeleton: Sequence[Sequence[int]] = (),
    colours: Any = None,
) -> np.ndarray:
    """A BGR uint8 picture of an image, with masks, boxes with texts, and keypoints with their skeleton.

    Colours (BGR) are those of the labels by default. Texts of classes without boxes are lines in the corner.
    """
    if colours is None:
        colours = [colour_of(label) for label in detections.labels]
    picture = viewable(image)
    if detections.masks is not None:
        draw_masks(picture, detections.masks, colours)
    if detections.boxes is None:
        return draw_lines(picture, texts, colours)
    draw_boxes(picture, detections.boxes, texts, colours, detections.oriented_boxes)
    if detections.keypoints is not None:
        draw_keypoints(picture, detections.keypoints, detections.keypoint_scores, colours, skeleton)
    return picture


def draw_masks(image: np.ndarray, masks: np.ndarray, colours: Sequence[Any]) -> np.ndarray:
    """Tint masks (n, H, W), the best one on top, into a BGR uint8 picture, which is returned."""
    for i in reversed(range(len(masks))):
        mask = masks[i]
        image[mask] = (0.5 * image[mask] + 0.5 * np.array(colours[i])).astype(np.uint8)
    return image


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: Sequence[Any], turned: Any = None
) -> np.ndarray:
    """Draw boxes (n, 4), each with a text and in a colour (BGR), into a BGR uint8 picture, which is returned.

    With oriented boxes ``turned`` (n, 5) these are drawn, and their texts above their highest corners.
    """
    thick = max(1, round(max(image.shape) / 500))
    if len(texts) != len(boxes):
        raise ValueError(f'{len(texts)} texts for {len(boxes)} boxes: give one for each, such as captions() makes')
    rectangles = None if turned is None else np.round(corners_of(turned)).astype(np.int32)
    for i, (box, text, colour) in enumerate(zip(boxes, texts, colours)):
        left, top, right, bottom = (round(float(v)) for v in box)
        if rectangles is None:
            cv2.rectangle(image, (left, top), (right, bottom), colour, thick)
        else:
            cv2.polylines(image, [rectangles[i]], True, colour, thick, cv2.LINE_AA)
            left, top = rectangles[i][rectangles[i][:, 1].argmin()].tolist()
        if not text:
            continue
        draw_text(image, text, colour, left, top, thick)
    return image


def draw_lines(image: np.ndarray, texts: Sequence[str], colours: Sequence[Any]) -> np.ndarray:
    """Draw texts, each in a colour (BGR), as lines in the upper left corner of a picture, which is returned.

    They take at most half of its height: in a small picture, the best only.
    """
    thick, bottom = max(1, round(min(image.shape[:2]) / 400)), 0
    (_, height), base = cv2.getTextSize('0', cv2.FONT_HERSHEY_SIMPLEX, thick / 3, thick)
    fit = max(1, image.shape[0] // 2 // (height + base + 1))
    for text, colour in zip(texts[:fit], colours):
        bottom = draw_text(image, text, colour, 0, bottom + 1, thick, below=True)
    return image


def draw_text(image: np.ndarray, text: str, colour: Any, left: int, edge: int, thick: int, below: bool = False) -> int:
    """Draw a text on a colour (BGR) above an edge, or below it; where the text ends at its bottom."""
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, thick / 3, thick)
    bottom = edge + height + base if below else max(edge, height + base)
    cv2.rectangle(image, (left, bottom - height - base), (left + width, bottom), colour, -1)
    cv2.putText(image, text, (left, bottom - base // 2), cv2.FONT_HERSHEY_SIMPLEX, thick / 3, (0, 0, 0), thick)
    return bottom


def draw_keypoints(
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    colours: Sequence[Any],
    skeleton: Sequence[Sequence[int]] = (),
    score: float = 0.5,
) -> np.ndarray:
    """Draw keypoints (n, K, 2) of a score (n, K) above a threshold into a BGR uint8 picture, which is returned.

    Lines join the pairs of the skeleton, which are counted from 1.
    """
    radius = max(2, round(max(image.shape) / 200))
    for points, sure, colour in zip(np.round(keypoints).astype(int).tolist(), scores > score, colours):
        for one, other in ((a - 1, b - 1) for a, b in skeleton):
            if sure[one] and sure[other]:
                cv2.line(image, points[one], points[other], colour, max(1, radius // 2), cv2.LINE_AA)
        for number, point in enumerate(points):
            if sure[number]:
                cv2.circle(image, point, radius, colour_of(number * 5), -1, cv2.LINE_AA)
    return image


def colour_of(number: int) -> list[int]:
    """The colour (BGR) of a class, or of any other number."""
    hue = np.array([[[int(number) * 47 % 180, 200, 230]]], np.uint8)
    return cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()


def viewable(image: np.ndarray) -> np.ndarray:
    """A BGR uint8 copy of an image of any channels from 0 to 255: the first three, or the first one as grey."""
    image = image.reshape(*image.shape[:2], -1)
    channels = [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]
    return np.ascontiguousarray(image[..., channels].clip(0, 255).astype(np.uint8))


def main(arguments: list[str]) -> int:
    """Command line: a file, then images."""
    parser = argparse.ArgumentParser(
        description='Detect objects in images with an exported ONNX file.',
        epilog='example: python onnx_detector.py model.onnx image.jpg --score 0.5   # writes image.detected.jpg',
    )
    parser.add_argument('model', help='file of tools/export.py')
    parser.add_argument('images', nargs='+', type=Path, metavar='IMAGE', help='images that OpenCV reads')
    parser.add_argument('--score', type=float, help='score threshold, from 0 to 1 (0.25; of a classifier 0)')
    parser.add_argument('--out-dir', type=Path, metavar='DIR', help='output folder (the folder of each image)')
    args = parser.parse_args(arguments)
    try:
        detector = OnnxDetector(args.model)
    except ValueError as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    for path in args.images:
        depth = cv2.IMREAD_ANYDEPTH if detector.to_float32 else 0
        _, pages = cv2.imreadmulti(str(path), flags=FLAGS.get(detector.channels, cv2.IMREAD_UNCHANGED) | depth)
        image = np.dstack(pages if detector.channels in (2, 4) else pages[:1]) if pages else None
        if image is None:
            print(f'error: {path} is not an image that OpenCV reads', file=sys.stderr)
            return 1
        if image.shape[2] != detector.channels:
            print(
                f'error: {path} has the shape {image.shape}, the model takes {detector.channels} channels',
                file=sys.stderr,
            )
            return 1
        if image.dtype == np.uint16:
            image = image.astype(np.float32) / 257 if detector.to_float32 else (image // 256).astype(np.uint8)
        detections = detector(image, args.score)
        picture = (args.out_dir or path.parent) / path.with_suffix('.detected.jpg').name
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), draw(image, detections, captions(detections, detector.names), detector.skeleton))
        if not len(detections.scores):
            what = 'class' if detector.classifies else 'object'
            print(f'{path}: no {what} of a score above {threshold(Limits(args.score)):g}')
        elif detector.classifies:
            print(f'{path}: {", ".join(captions(detections, detector.names))}')
        if detector.classifies:
            continue
        for box, score, label in zip(*detections[:3]):
            print(f'{path}: {detector.names[label]} {score:.3f} at {" ".join(f"{v:.0f}" for v in box)}')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
