"""``load_model``: loads a config with its checkpoint, or an exported file, as a model with the same interface."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmdyn.checkpoints import WEIGHTS
from mmdyn.convert import weights_config
from mmdyn.datasets.pixels import from_sixteen_bits, read_pixels
from mmdyn.errors import UserError, class_number, listed_classes
from mmdyn.layers import dynamic_layers, record_routing
from mmdyn.running.config_file import load_config

from .checkpoint_detector import CheckpointDetector
from .media import VIDEOS, EndsEarlyError, Frame, Media, open_media
from .onnx_detector import Detections, LimitError, Limits, OnnxDetector
from .packaged import SHORT_NAMES, packaged
from .prediction import Prediction, Routing
from .runtimes import RUNTIMES, open_exported
from .slicing import SlicedDetector
from .tracking import Tracks

WEIGHTS_ALONE = ('.pth', *WEIGHTS)
Image = str | Path | np.ndarray | Any  # the last is a PIL image


class Model:
    """A model that takes images; see :func:`load_model`.

    Args:
        detector: Detector of arrays.

    Attributes:
        names: Names of the classes.
        classifies: Whether it gives classes of the whole image, not boxes.
        channels: Channels of an image.
        to_float32: Whether 16 bits of an image are kept.

    Example:
        >>> model = load_model('yolo11n_dynconv_digits', digits_checkpoint, device='cpu')
        >>> len(model.names), len(model([digits_image, digits_image]))
        (10, 2)
        >>> model
        Model(CheckpointDetector, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, …)
    """

    def __init__(self, detector: CheckpointDetector | OnnxDetector | SlicedDetector) -> None:
        self.detector = detector
        self.names: list[str] = detector.names
        self.classifies = getattr(detector, 'classifies', False)
        self.channels, self.to_float32 = detector.channels, detector.to_float32

    def __repr__(self) -> str:
        return f'Model({type(self.detector).__name__}, {listed_classes(self.names)})'

    @overload
    def __call__(self, images: list[Image], score: float | None = None, **options: Any) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Image, score: float | None = None, **options: Any) -> Prediction: ...
    def __call__(
        self, images, score=None, iou=None, max_detections=None, classes=None, agnostic=False, *, routing=False
    ):
        """Predict for one image, or for each of a list.

        Args:
            images: A path or URL, a uint8 array in BGR (H, W, 3) or grey (H, W), a PIL image, or a list of
                these. For a model of other channels, an array (H, W, channels), also uint16.
            score: Score threshold; None takes 0.25, or 0 for a classifier.
            iou: Overlap above which NMS drops the lower of two boxes; None takes the model's.
            max_detections: Most detections of an image; None takes the model's, or the five best classes.
            classes: Names or numbers of the classes to predict; None predicts all.
            agnostic: NMS among the boxes of all classes, not within each.
            routing: Also give the weights of the experts, as ``routing`` of each prediction.

        Returns:
            A :class:`Prediction`, or a list of them.

        Raises:
            UserError: An image cannot be read, a value is invalid, there is no such class, or there are no experts.
        """
        limits = self._limits(score, iou, max_detections, classes, agnostic)
        several = isinstance(images, list | tuple)
        images = images if several else [images]
        arrays = [as_array(image, self.channels, self.to_float32) for image in images]
        paths = [str(image) if isinstance(image, str | Path) else None for image in images]
        predictions = self._predict(arrays, paths, limits, routing)
        return predictions if several else predictions[0]

    def stream(
        self,
        source: str | Path | Media,
        score: float | None = None,
        *,
        batch: int = 1,
        stride: int = 1,
        routing: bool = False,
        **limits: Any,
    ) -> Iterator[Prediction]:
        """Predict for the images of a folder, a list, a video, a stream or a camera, one after the other.

        Args:
            source: What :func:`mmdyn.inference.media.open_media` takes, or what it gives.
            score: As for a call.
            batch: Images that are predicted at a time.
            stride: Every so many frames of a video one is predicted.
            routing: As for a call.
            limits: ``iou``, ``max_detections``, ``classes`` and ``agnostic``, as for a call.

        Returns:
            Predictions as they come; ``name`` is the name of the image, or the number of the frame.

        Raises:
            UserError: As for a call; or the source is not there, or ends early.

        Example:
            >>> model = load_model('digits', device='cpu')
            >>> len(list(model.stream(digits_image.parent)))
            8
        """
        if batch < 1:
            raise UserError(f'invalid batch {batch}: set it to 1 image or more')
        if routing:
            self._dynamic_network()
        return self._stream(self.open(source, stride), self._limits(score, **limits), batch, routing)

    def _stream(self, media: Media, limits: Limits, batch: int, routing: bool) -> Iterator[Prediction]:
        frames = iter(media)
        end: EndsEarlyError | None = None
        while end is None:
            part: list[Frame] = []
            try:
                part.extend(islice(frames, batch))  # keeps what came before an error
            except EndsEarlyError as e:
                end = e
            if not part:
                break
            arrays = [as_array(frame.image, self.channels, self.to_float32) for frame in part]
            predictions = self._predict(arrays, [frame.path for frame in part], limits, routing)
            for frame, prediction in zip(part, predictions, strict=True):
                prediction.set_metainfo(dict(name=frame.name))
                yield prediction
        if end is not None:
            raise end

    def track(
        self,
        source: str | Path | Media,
        tracker: str = 'bytetrack',
        score: float = 0.1,
        *,
        stride: int = 1,
        tracker_options: dict[str, Any] | None = None,
        **limits: Any,
    ) -> Iterator[Prediction]:
        """Predict for the frames of a video, and follow the objects.

        Args:
            source: A video, a stream, a camera, or images in the order of their names.
            tracker: ``'bytetrack'``, ``'botsort'``, ``'ocsort'``, ``'cbiou'`` or ``'sort'``.
            score: Score threshold; ByteTrack and those of its kind use weak detections to keep an object.
            stride: Every so many frames one is predicted.
            tracker_options: Arguments of the tracker.
            limits: ``iou``, ``max_detections``, ``classes`` and ``agnostic``, as for a call.

        Returns:
            Predictions of tracked objects as they come, whose numbers are ``pred_instances.instances_id``.

        Raises:
            UserError: As for :meth:`stream`; the package ``trackers`` is missing, or there is no such tracker.
        """
        self._refuse_classifier('tracking follows objects')
        media = self.open(source, stride)
        tracks = Tracks(tracker, media.fps or 25.0, tracker_options)
        return map(tracks.follow, self.stream(media, score, **limits))

    def sliced(self, size: int = 640, overlap: float = 0.2) -> 'Model':
        """This model on tiles of large images: see :class:`mmdyn.inference.slicing.SlicedDetector`.

        Args:
            size: Height and width of a tile in pixels.
            overlap: Share of a tile that its neighbour has, too.
        """
        self._refuse_classifier('--slice is for small objects')
        return Model(SlicedDetector(self.detector, size, overlap))

    def _refuse_classifier(self, purpose: str) -> None:
        if self.classifies:
            raise UserError(f'{purpose}, and a classifier finds none: take a detector')

    def open(self, source: str | Path | Media, stride: int = 1) -> Media:
        """Open a source, with the channels of the model; see :func:`mmdyn.inference.media.open_media`."""
        if stride < 1:
            raise UserError(f'invalid stride {stride}: set it to 1 frame or more')
        if isinstance(source, Media):
            if stride != 1:
                raise UserError(f'invalid stride {stride} for an open source: set it where the source is opened')
            return source
        return open_media(str(source), self.channels, self.to_float32, stride)

    def _limits(self, score=None, iou=None, max_detections=None, classes=None, agnostic=False) -> Limits:
        for name, value in (('score', score), ('iou', iou)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f'invalid {name} {value:g}: set it from 0 to 1')
        if max_detections is not None and max_detections < 1:
            raise UserError(f'invalid number of detections {max_detections}: set it to 1 or more')
        if isinstance(classes, str):
            raise UserError(f'invalid classes {classes!r}: set a list of names or numbers')
        numbers = None if classes is None else sorted({class_number(each, self.names) for each in classes})
        limits = Limits(score, iou, max_detections, numbers, agnostic)
        try:
            self.detector.check_limits(limits)
        except LimitError as e:
            raise UserError(str(e)) from e
        return limits

    def _predict(
        self, arrays: list[np.ndarray], paths: Sequence[str | None], limits: Limits, routing: bool
    ) -> list[Prediction]:
        if not arrays:
            return []
        found: Iterable[tuple[Detections, Routing | None]]
        if routing:
            found = (self._routed(array, limits) for array in arrays)
        else:
            found = ((detections, None) for detections in self.detector(arrays, *limits))
        rows = zip(arrays, paths, found, strict=True)
        skeleton = self.detector.skeleton
        return [Prediction.of(array, self.names, one, path, weights, skeleton) for array, path, (one, weights) in rows]

    def _dynamic_network(self) -> torch.nn.Module:
        network = getattr(self.detector, 'model', None)
        if network is None or not dynamic_layers(network):
            raise UserError(
                'there is no routing to show: it takes a checkpoint of a dynamic model, not a static one or an export, '
                'and no slicing'
            )
        return network

    def _routed(self, array: np.ndarray, limits: Limits) -> tuple[Detections, Routing]:
        """The detections of an image, and the weights of the experts, averaged for a layer that runs several times."""
        with record_routing(self._dynamic_network()) as seen:
            detections = self.detector([array], *limits)
        return detections[0], {name: torch.cat(calls).mean(0).cpu().numpy() for name, calls in seen.items() if calls}


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
    if isinstance(image, str | Path) and (Path(image).is_dir() or Path(image).suffix.lower() in VIDEOS):
        raise UserError(f'{image} is no single image: use stream() of the model, or track()')
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
            ``.onnx``, ``.xml``, ``.param``, ``.tflite``, …; or ``'digits'``, a small detector that comes with mmdyn.
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
            load_config(model if isinstance(model, Config) else str(model))  # an unknown name is called that
            raise UserError(
                f'{name} needs a checkpoint: use load_model(CONFIG, CHECKPOINT), load_model with one file of weights '
                f'or of an export ({", ".join([*WEIGHTS_ALONE, *RUNTIMES])}), '
                f'or load_model({next(iter(SHORT_NAMES))!r})'
            )
        model, checkpoint = own
    cfg = model if isinstance(model, Config) else load_config(str(model))
    return Model(CheckpointDetector(cfg, checkpoint, device))
