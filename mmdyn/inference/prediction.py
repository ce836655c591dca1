"""The prediction for one image: mmdet's data sample, which can draw itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from .onnx_detector import Detections, captions, colour_of, draw, viewable

# Of instances, in the order of Detections.
FIELDS = ('bboxes', 'scores', 'labels', 'masks', 'keypoints', 'keypoint_scores', 'oriented_boxes')
Routing = Mapping[str, np.ndarray]  # weights of the experts, (M,), by name of the layer


class Prediction(DetDataSample):
    """mmdet's data sample of one image, which can draw itself.

    ``pred_instances`` has ``bboxes`` (n, 4) in pixels, ``scores`` (n,) and ``labels`` (n,); of a model of segmentation
    ``masks`` (n, H, W), of one of poses ``keypoints`` (n, K, 2) and ``keypoint_scores`` (n, K), of one of oriented
    boxes ``oriented_boxes`` (n, 5), of a classifier no ``bboxes``, and of a tracked video ``instances_id`` (n,).
    ``trails`` has the centres of each tracked object so far, (frames, 2) by its number, and ``routing`` the weights of
    the experts by layer, where they were asked for.

    Example:
        >>> from mmdyn.inference.onnx_detector import Detections
        >>> detections = Detections(np.array([[1, 1, 9, 9]]), np.array([0.9]), np.array([0]))
        >>> prediction = Prediction.of(np.zeros((32, 32, 3), np.uint8), ['cat'], detections, path=None)
        >>> prediction.pred_instances.bboxes.tolist(), prediction.draw().shape
        ([[1, 1, 9, 9]], (32, 32, 3))
        >>> prediction
        Prediction(array: 1 cat)
    """

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        names: Sequence[str],
        detections: Detections,
        path: str | None,
        routing: Routing | None = None,
        skeleton: Sequence[Sequence[int]] = (),
    ) -> 'Prediction':
        """Build the prediction of an image (H, W, channels) from detections, class names, and pairs of keypoints."""
        size = image.shape[:2]
        values = dict(img_path=path, ori_shape=size, img_shape=size, names=tuple(names), image=image, routing=routing)
        sample = cls(metainfo=values | dict(skeleton=skeleton))
        fields = {name: value for name, value in zip(FIELDS, detections, strict=True) if value is not None}
        arrays = {name: np.ascontiguousarray(value) for name, value in fields.items()}  # masks are large: not copied
        sample.pred_instances = InstanceData(**{name: torch.from_numpy(v) for name, v in arrays.items()})
        return sample

    def __repr__(self) -> str:
        detections = self.detections()
        if detections.boxes is None:
            best = ', '.join(captions(detections, self.names))
            return f'Prediction({self.img_path or self.get("name") or "array"}: {best or "nothing"})'
        counts = Counter(self.names[label] for label in detections.labels)
        found = ', '.join(f'{count} {name}' for name, count in counts.most_common())
        return f'Prediction({self.img_path or self.get("name") or "array"}: {found or "nothing"})'

    def draw(self) -> np.ndarray:
        """The image with what was predicted, a BGR uint8 array, whatever its channels.

        Returns:
            The image (H, W, 3) with boxes, class names, scores, and numbers and trails of tracked objects; with
            ``routing`` it is wider, by the weights of the experts as bars.
        """
        found, colours, picture = self.detections(), None, self.image
        texts = captions(found, self.names)
        if 'instances_id' in self.pred_instances:
            numbers, picture = self.pred_instances.instances_id.tolist(), viewable(picture)
            colours = [colour_of(number) for number in numbers]
            texts = [f'#{number} {text}' for number, text in zip(numbers, texts, strict=True)]
            for number, colour in zip(numbers, colours, strict=True):
                trail = np.round(self.trails[number]).astype(np.int32)
                cv2.polylines(picture, [trail], False, colour, max(1, round(max(picture.shape) / 400)))
        picture = draw(picture, found, texts, self.skeleton, colours)
        return picture if self.routing is None else np.hstack((picture, routing_bars(self.routing, len(picture))))

    def rows(self) -> dict[str, Any]:
        """The predictions as JSON: the fields of mmdet's ``DetInferencer``, and what else there is."""
        boxes, scores, labels, masks, keypoints, keypoint_scores, turned = self.detections()
        rows: dict[str, Any] = dict(labels=labels.tolist(), scores=[round(float(score), 5) for score in scores])
        if boxes is not None:
            rows['bboxes'] = [[round(float(side), 2) for side in box] for box in boxes]
        rows['names'] = [self.names[label] for label in labels]
        if masks is not None:
            rows['masks'] = [run_length(mask) for mask in masks]
        if keypoints is not None:  # as in COCO: x, y and score in turn
            points = np.concatenate([np.round(keypoints, 2), np.round(keypoint_scores, 5)[..., None]], 2)
            rows['keypoints'] = points.astype(float).round(5).reshape(len(points), 3 * points.shape[1]).tolist()
        if turned is not None:  # centre, width and height in pixels, angle in radians
            rows['oriented_boxes'] = [[*(round(float(v), 2) for v in b[:4]), round(float(b[4]), 5)] for b in turned]
        if 'instances_id' in self.pred_instances:
            rows['ids'] = self.pred_instances.instances_id.tolist()
        if self.routing is not None:
            rows['routing'] = {layer: [round(float(w), 5) for w in weights] for layer, weights in self.routing.items()}
        return rows

    def detections(self) -> Detections:
        """What was detected as arrays."""
        instances = self.pred_instances
        found: list[Any] = [instances[k].cpu().numpy() if k in instances else None for k in FIELDS]
        return Detections(*found)


def run_length(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) as COCO's run-length code, for JSON.

    Example:
        >>> run_length(np.ones((2, 3), bool))
        {'size': [2, 3], 'counts': '06'}
    """
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=list(code['size']), counts=code['counts'].decode())


def routing_bars(routing: Routing, height: int) -> np.ndarray:
    """The weights of the experts as bars from 0 to 1, layers one below the other.

    Args:
        routing: Weights (M,) by layer.
        height: Height of the picture.

    Returns:
        A BGR uint8 array, (height, half of height, 3).

    Example:
        >>> routing_bars({'backbone.stage2.0': np.array([0.2, 0.7])}, height=320).shape
        (320, 160, 3)
    """
    width, pitch = max(96, height // 2), height / max(len(routing), 1)
    longest = max((cv2.getTextSize(layer, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)[0][0] for layer in routing), default=1)
    scale = min(pitch / 60, (width - 8) / longest)
    text_height = max(8, round(25 * scale))
    picture = np.full((height, width, 3), 255, np.uint8)
    for row, (layer, weights) in enumerate(routing.items()):
        top = round(row * pitch)
        cv2.putText(picture, layer, (4, top + text_height), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
        step = (pitch - 1.6 * text_height) / len(weights)
        for expert, weight in enumerate(weights):
            y = round(top + 1.4 * text_height + expert * step)
            low = max(y, round(y + 0.8 * step) - 1)
            cv2.rectangle(picture, (4, y), (width - 4, low), (225, 225, 225), -1)
            cv2.rectangle(picture, (4, y), (4 + round(float(weight) * (width - 8)), low), colour_of(expert), -1)
    return picture
