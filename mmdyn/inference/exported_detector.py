"""An exported file as a model of MMEngine, so that its runner and evaluators can test it."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from mmyolo.registry import MODELS
from torch import Tensor

from mmdyn.errors import UserError
from mmdyn.running.image_channels import image_channels
from mmdyn.running.image_size import test_size
from mmdyn.running.testing import drop_ema, task_of_config, use_pipeline_sizes
from mmdyn.tasks import TASKS

from .onnx_detector import Limits, OnnxDetector, Placement, restore
from .prediction import FIELDS
from .runtimes import RUNTIMES, open_exported


class Counts:
    """What :class:`mmdyn.engine.ClassCheckHook` reads from a head: numbers of classes and keypoints."""

    def __init__(self, num_classes: int, keypoint_shape: Sequence[int] | None) -> None:
        self.num_classes = num_classes
        self.keypoint_shape = keypoint_shape or (0, 0)


@MODELS.register_module()
class ExportedClassifier(BaseModel):
    """A classifier that runs an exported file; for testing only.

    Args:
        path: As in :class:`ExportedDetector`.
        data_preprocessor: The classifier's.

    Raises:
        UserError: As there.

    Example:
        >>> ExportedClassifier('missing.onnx', data_preprocessor=None)
        Traceback (most recent call last):
        ...
        mmdyn.errors.UserError: no exported file at ...
    """

    def __init__(self, path: str, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        self.session = open_exported(path)
        self.head = Counts(len(self.session.names), None)
        self.trained_on = names_of(self.session)

    def forward(self, inputs: Tensor, data_samples: list[Any] | None = None, mode: str = 'predict') -> list[Any]:
        """Classify a batch.

        Args:
            inputs: Normalised images, (B, channels, H, W).
            data_samples: mmpretrain's data samples of the images; predictions are added.
            mode: Only ``'predict'``.
        """
        samples = refuse_other_modes(mode, data_samples)
        images = inputs.cpu().numpy()
        every = Limits(max_detections=len(self.session.names))
        for sample, found in zip(samples, self.session.detect_all(images, every), strict=True):
            scores = torch.zeros(len(self.session.names))
            scores[torch.from_numpy(found.labels)] = torch.from_numpy(found.scores)
            sample.set_pred_score(scores).set_pred_label(scores.argmax(keepdim=True))
        return samples


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """A detector that runs an exported file; for testing only.

    Args:
        path: A file of a suffix in :data:`mmdyn.inference.runtimes.RUNTIMES`.
        data_preprocessor: The detector's.
        test_cfg: The detector's: ``score_thr``, ``nms.iou_threshold``, ``max_per_img`` and ``clip_boxes`` are used;
            the first three are fixed in a file with NMS.

    Raises:
        UserError: The file is missing, does not load, or was not exported by mmdyn.

    Example:
        >>> ExportedDetector('missing.onnx', data_preprocessor=None, test_cfg=dict(max_per_img=300))
        Traceback (most recent call last):
        ...
        mmdyn.errors.UserError: no exported file at ...
    """

    def __init__(self, path: str, data_preprocessor: dict, test_cfg: dict) -> None:
        super().__init__(data_preprocessor)
        self.session = open_exported(path)
        self.session.meta['max_detections'] = test_cfg['max_per_img']
        self.test_cfg = test_cfg
        self.bbox_head = Counts(len(self.session.names), self.session.meta['keypoint_shape'])
        self.trained_on = names_of(self.session)

    def forward(
        self, inputs: Tensor, data_samples: list[DetDataSample] | None = None, mode: str = 'predict'
    ) -> list[DetDataSample]:
        """Detect in a batch.

        Args:
            inputs: Normalised images, (B, channels, H, W).
            data_samples: Data samples of the images; predictions are added.
            mode: Only ``'predict'``.
        """
        samples = refuse_other_modes(mode, data_samples)
        limits = Limits(self.test_cfg['score_thr'], self.test_cfg['nms']['iou_threshold'])
        detected = self.session.detect_all(inputs.cpu().numpy(), limits)
        clip = self.test_cfg.get('clip_boxes', True)
        for sample, detections in zip(samples, detected, strict=True):
            pad = sample.metainfo.get('pad_param', np.zeros(4))
            placement = Placement(tuple(sample.scale_factor), float(pad[2]), float(pad[0]))
            detections = restore(detections, placement, sample.ori_shape, clip)
            fields = {k: v for k, v in zip(FIELDS, detections, strict=True) if v is not None}
            sample.pred_instances = InstanceData(
                **{key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in fields.items()}
            )
        return samples


def names_of(session: OnnxDetector) -> tuple[str, ...] | None:
    """Class names in an exported file; None if its checkpoint had none."""
    return tuple(session.names) if session.names[0] != 'class 0' else None


def refuse_other_modes(mode: str, data_samples: list[Any] | None) -> list[Any]:
    """The data samples to predict for.

    Raises:
        UserError: The mode is not ``'predict'``, or there are none.
    """
    if mode != 'predict' or data_samples is None:
        raise UserError('an exported file can only predict: train or profile the checkpoint instead')
    return data_samples


def use_exported(cfg: Config, path: str | Path) -> Config:
    """A config that tests an exported file instead of a checkpoint.

    Images are padded to squares if the file requires it, and the long side is that of the file.

    Args:
        cfg: Config of the detector that was exported; not modified.
        path: The file.

    Raises:
        UserError: The file cannot be run here, or its image size differs from the config's.
    """
    if Path(path).suffix not in RUNTIMES:
        raise UserError(
            f'{path} cannot be tested: give a checkpoint, or a file that ends in {", ".join(RUNTIMES)}. A .pt2 can run '
            'code when loaded, and was compared with PyTorch when it was exported'
        )
    session, cfg = open_exported(path), copy.deepcopy(cfg)
    task, wanted = session.meta['task'], task_of_config(cfg).name
    if task != wanted:
        raise UserError(f'{path} is a file of {TASKS[task].title}, the config is one of {TASKS[wanted].title}')
    if tuple(session.size) != test_size(cfg):
        sizes = ' x '.join(map(str, session.size)), ' x '.join(map(str, test_size(cfg)))
        raise UserError(f'{path} is for images of {sizes[0]} pixels, the config has {sizes[1]}')
    if session.channels != image_channels(cfg):
        raise UserError(f'{path} takes images of {session.channels} channels, the config has {image_channels(cfg)}')
    if task == 'classify':
        return _replaced(cfg, 'mmyolo.ExportedClassifier', path)
    for name, value in (
        ('score_threshold', cfg.model.test_cfg.score_thr),
        ('iou_threshold', cfg.model.test_cfg.nms.iou_threshold),
        ('max_detections', cfg.model.test_cfg.max_per_img),
    ):
        if session.meta['nms'] and session.meta[name] != value:
            raise UserError(
                f'{path} has NMS with {name}={session.meta[name]}, but the config has {value}: export again'
            )
    if session.meta['square']:
        use_pipeline_sizes(cfg)
    return _replaced(cfg, 'mmyolo.ExportedDetector', path, test_cfg=cfg.model.test_cfg)


def _replaced(cfg: Config, kind: str, path: str | Path, **options: Any) -> Config:
    """A config whose model is changed in place for one that runs an exported file."""
    cfg.model = dict(type=kind, path=str(path), data_preprocessor=cfg.model.data_preprocessor, **options)
    cfg.load_from, cfg.resume = None, False
    drop_ema(cfg)
    return cfg
