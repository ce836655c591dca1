"""``load_model``: loads a config with its checkpoint, or an exported file, as a detector with the same interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdyn.errors import UserError
from mmdyn.running.config_file import load_config

from .checkpoint_detector import CheckpointDetector
from .media import read_image
from .onnx_detector import Detections, OnnxDetector, draw
from .runtimes import DETECTORS, open_exported

Image = str | Path | np.ndarray | Any  # the last is a PIL image
RUNTIMES = tuple(suffix for suffix in DETECTORS if suffix != '.pt2')  # a .pt2 can run code when it is loaded


class Prediction(DetDataSample):
    """mmdet's data sample of one image, which can draw itself.

    ``pred_instances`` has ``bboxes`` (n, 4) in pixels, ``scores`` (n,) and ``labels`` (n,).

    Example:
        >>> from mmdyn.inference.onnx_detector import Detections
        >>> detections = Detections(np.array([[1, 1, 9, 9]]), np.array([0.9]), np.array([0]))
        >>> prediction = Prediction.of(np.zeros((32, 32, 3), np.uint8), ['cat'], detections, path=None)
        >>> prediction.pred_instances.bboxes.tolist(), prediction.draw().shape
        ([[1, 1, 9, 9]], (32, 32, 3))
    """

    @classmethod
    def of(cls, image: np.ndarray, names: Sequence[str], detections: Detections, path: str | None) -> 'Prediction':
        """Build the prediction of a BGR uint8 image (H, W, 3) from detections and class names."""
        size = image.shape[:2]
        sample = cls(metainfo=dict(img_path=path, ori_shape=size, img_shape=size, names=tuple(names), image=image))
        fields = zip(('bboxes', 'scores', 'labels'), detections, strict=True)
        sample.pred_instances = InstanceData(**{name: torch.from_numpy(np.array(value)) for name, value in fields})
        return sample

    def draw(self) -> np.ndarray:
        """The image with boxes, class names and scores, a BGR uint8 array (H, W, 3)."""
        return draw(self.image, self._detections(), self.names)

    def rows(self) -> dict[str, list]:
        """The content of the JSON file: the fields of mmdet's ``DetInferencer``, and the class names."""
        boxes, scores, labels = self._detections()
        return dict(
            labels=labels.tolist(),
            scores=[round(float(score), 5) for score in scores],
            bboxes=[[round(float(side), 2) for side in box] for box in boxes],
            names=[self.names[label] for label in labels],
        )

    def _detections(self) -> Detections:
        instances = self.pred_instances
        return Detections(*(instances[k].cpu().numpy() for k in ('bboxes', 'scores', 'labels')))


class Model:
    """A model that takes images; see :func:`load_model`.

    Args:
        detector: Detector of arrays.

    Attributes:
        names: Names of the classes.

    Example:
        >>> model = load_model('yolo11n_dynconv_digits', digits_checkpoint, device='cpu')
        >>> len(model.names), len(model([digits_image, digits_image]))
        (10, 2)
    """

    def __init__(self, detector: CheckpointDetector | OnnxDetector) -> None:
        self.detector = detector
        self.names: list[str] = detector.names

    @overload
    def __call__(self, images: list[Image], score: float = 0.25) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Image, score: float = 0.25) -> Prediction: ...
    def __call__(self, images, score=0.25):
        """Predict for one image, or for each of a list.

        Args:
            images: A path or URL, a uint8 array in BGR (H, W, 3) or grey (H, W), a PIL image, or a list of these.
            score: Score threshold.

        Returns:
            A :class:`Prediction`, or a list of them.

        Raises:
            UserError: An image cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self([images], score)[0]
        arrays = [as_array(image) for image in images]
        paths = [str(image) if isinstance(image, str | Path) else None for image in images]
        detections = self.detector(arrays, score) if arrays else []
        return [Prediction.of(a, self.names, d, p) for a, d, p in zip(arrays, detections, paths, strict=True)]


def as_array(image: Image) -> np.ndarray:
    """An image as a BGR uint8 array, (H, W, 3).

    Args:
        image: As in :class:`Model`.

    Raises:
        UserError: It cannot be read, or is not an image.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, np.ndarray):
        array = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    elif hasattr(image, 'convert'):  # a PIL image of any mode
        array = np.asarray(image.convert('RGB'))[..., ::-1]
    else:
        raise UserError(f'an image must be a path, an array or a PIL image, got a {type(image).__name__}')
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise UserError(f'an array must be BGR uint8 (height, width, 3), got {array.dtype} {array.shape}')
    return np.ascontiguousarray(array)


def load_model(model: str | Path | Config, checkpoint: str | Path | None = None, device: str | None = None) -> Model:
    """Load a model for inference.

    Args:
        model: A config, its path, or its name (``'yolo11n_dynconv_coco'``), with a checkpoint; or a file of
            ``tools/export.py``: ``.onnx``, ``.xml`` or ``.param``.
        checkpoint: Checkpoint of the config.
        device: Device of the checkpoint's model, ``'cpu'`` or ``'cuda:0'``; by default a GPU if available.

    Returns:
        The model; call it with images.

    Raises:
        UserError: A file is missing, does not load, or does not fit the config.

    Example:
        >>> model = load_model('yolo11n_dynconv_digits', digits_checkpoint, device='cpu')
        >>> prediction = model(digits_image, score=0.5)
        >>> prediction.pred_instances.bboxes.shape[1]
        4
        >>> prediction.draw().shape
        (320, 320, 3)
    """
    if not isinstance(model, Config) and Path(model).suffix in RUNTIMES:
        if checkpoint is not None:
            raise UserError(f'{model} is an exported file and needs no checkpoint: omit {checkpoint}')
        return Model(open_exported(model))
    if checkpoint is None:
        raise UserError(
            f'{model} needs a checkpoint: use load_model(CONFIG, CHECKPOINT), or load_model with one exported file '
            f'({", ".join(RUNTIMES)})'
        )
    cfg = model if isinstance(model, Config) else load_config(str(model))
    return Model(CheckpointDetector(cfg, checkpoint, device))
