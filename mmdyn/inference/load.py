"""``load_model``: loads a config with its checkpoint, or an exported file, as a detector with the same interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdyn.checkpoints import WEIGHTS
from mmdyn.convert import weights_config
from mmdyn.datasets.pixels import from_sixteen_bits, read_pixels
from mmdyn.errors import UserError, listed_classes
from mmdyn.running.config_file import load_config

from .checkpoint_detector import CheckpointDetector
from .onnx_detector import Detections, OnnxDetector, draw
from .packaged import SHORT_NAMES, packaged
from .runtimes import RUNTIMES, open_exported

WEIGHTS_ALONE = ('.pth', *WEIGHTS)
Image = str | Path | np.ndarray | Any  # the last is a PIL image


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
        """Build the prediction of an image (H, W, channels) from detections and class names."""
        size = image.shape[:2]
        sample = cls(metainfo=dict(img_path=path, ori_shape=size, img_shape=size, names=tuple(names), image=image))
        fields = zip(('bboxes', 'scores', 'labels'), detections, strict=True)
        sample.pred_instances = InstanceData(**{name: torch.from_numpy(np.array(value)) for name, value in fields})
        return sample

    def draw(self) -> np.ndarray:
        """The image with boxes, class names and scores, a BGR uint8 array (H, W, 3), whatever its channels."""
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
        channels: Channels of an image.
        to_float32: Whether 16 bits of an image are kept.

    Example:
        >>> model = load_model('yolo11n_dynconv_digits', digits_checkpoint, device='cpu')
        >>> len(model.names), len(model([digits_image, digits_image]))
        (10, 2)
        >>> model
        Model(CheckpointDetector, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, …)
    """

    def __init__(self, detector: CheckpointDetector | OnnxDetector) -> None:
        self.detector = detector
        self.names: list[str] = detector.names
        self.channels, self.to_float32 = detector.channels, detector.to_float32

    def __repr__(self) -> str:
        return f'Model({type(self.detector).__name__}, {listed_classes(self.names)})'

    @overload
    def __call__(self, images: list[Image], score: float = 0.25) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Image, score: float = 0.25) -> Prediction: ...
    def __call__(self, images, score=0.25):
        """Predict for one image, or for each of a list.

        Args:
            images: A path or URL, a uint8 array in BGR (H, W, 3) or grey (H, W), a PIL image, or a list of
                these. For a model of other channels, an array (H, W, channels), also uint16.
            score: Score threshold.

        Returns:
            A :class:`Prediction`, or a list of them.

        Raises:
            UserError: An image cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self([images], score)[0]
        arrays = [as_array(image, self.channels, self.to_float32) for image in images]
        paths = [str(image) if isinstance(image, str | Path) else None for image in images]
        detections = self.detector(arrays, score) if arrays else []
        return [Prediction.of(a, self.names, d, p) for a, d, p in zip(arrays, detections, paths, strict=True)]


def as_array(image: Image, channels: int = 3, to_float32: bool = False) -> np.ndarray:
    """An image as a model takes it.

    Args:
        image: As in :class:`Model`.
        channels: Channels of the model; colours become grey for one, grey is repeated for three.
        to_float32: Keep 16 bits, as float32 from 0 to 255.

    Returns:
        (H, W, channels), uint8 or float32; BGR for three channels.

    Raises:
        UserError: It cannot be read, or is not an image of these channels.
    """
    if isinstance(image, str | Path):
        return read_pixels(image, channels, to_float32)
    if isinstance(image, np.ndarray):
        array = image
    elif hasattr(image, 'convert'):  # a PIL image of any mode
        array = _pil_array(image, channels)
    else:
        raise UserError(f'an image must be a path, an array or a PIL image, got a {type(image).__name__}')
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2:] == (1,) and channels == 3:
        array = np.repeat(array, 3, axis=2)
    elif array.shape[2:] == (3,) and channels == 1:
        array = cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_BGR2GRAY)[..., None]
    if array.dtype == np.uint16:
        array = from_sixteen_bits(array, to_float32)
    allowed = (np.uint8, np.float32) if to_float32 else (np.uint8,)
    if array.dtype not in allowed or array.shape[2:] != (channels,):
        kind = 'BGR ' if channels == 3 else ''
        raise UserError(f'an array must be {kind}uint8 (height, width, {channels}), got {array.dtype} {array.shape}')
    return np.ascontiguousarray(array)


def _pil_array(image: Any, channels: int) -> np.ndarray:
    """A PIL image as an array with the channels in OpenCV's order; 16 bits stay."""
    if image.mode.startswith('I'):
        array = np.asarray(image)
        return array if array.dtype == np.uint16 else array.clip(0, 65535).astype(np.uint16)
    mode = {1: 'L', 3: 'RGB', 4: 'RGBA'}.get(channels, image.mode)
    array = np.asarray(image if channels == 4 and image.mode == 'CMYK' else image.convert(mode))
    return array[..., [2, 1, 0, *range(3, channels)]] if mode in ('RGB', 'RGBA') else array


def has_own_weights(model: str | Path) -> bool:
    """Whether :func:`load_model` needs no checkpoint: for weights, an exported file, and a packaged detector.

    Example:
        >>> has_own_weights('model.onnx'), has_own_weights('digits'), has_own_weights('yolo11n_coco')
        (True, True, False)
    """
    return Path(model).suffix in (*RUNTIMES, *WEIGHTS_ALONE) or packaged(str(model)) is not None


def load_model(model: str | Path | Config, checkpoint: str | Path | None = None, device: str | None = None) -> Model:
    """Load a model for inference.

    Args:
        model: A config, its path, or its name (``'yolo11n_dynconv_coco'``), with a checkpoint; a file of weights
            alone: the original's ``.pt``, ``.safetensors``, or a checkpoint of YOLO11; a file of ``tools/export.py``:
            ``.onnx``, ``.xml`` or ``.param``; or ``'digits'``, a small detector that comes with mmdyn.
        checkpoint: Checkpoint of the config, or other weights; static ones are upcycled for a dynamic config with batch
            norms.
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
    if not isinstance(model, Config) and checkpoint is None and Path(model).suffix in WEIGHTS_ALONE:
        return Model(CheckpointDetector(weights_config(model), model, device))
    if checkpoint is None:
        own = None if isinstance(model, Config) else packaged(str(model))
        if own is None:
            name = model.filename if isinstance(model, Config) else model
            raise UserError(
                f'{name} needs a checkpoint: use load_model(CONFIG, CHECKPOINT), load_model with one file of weights '
                f'or of an export ({", ".join([*WEIGHTS_ALONE, *RUNTIMES])}), '
                f'or load_model({next(iter(SHORT_NAMES))!r})'
            )
        model, checkpoint = own
    cfg = model if isinstance(model, Config) else load_config(str(model))
    return Model(CheckpointDetector(cfg, checkpoint, device))
