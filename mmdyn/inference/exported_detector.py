"""An exported file as a model of MMEngine, so that its runner and evaluators can test it."""

import copy
from collections.abc import Sequence
from pathlib import Path

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

from .onnx_detector import Limits, Placement, restore
from .prediction import FIELDS
from .runtimes import RUNTIMES, open_exported


class Counts:
    """What :class:`mmdyn.engine.ClassCheckHook` reads from a head: numbers of classes and keypoints."""

    def __init__(self, num_classes: int, keypoint_shape: Sequence[int] | None) -> None:
        self.num_classes = num_classes
        self.keypoint_shape = keypoint_shape or (0, 0)


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
        named = self.session.names[0] != 'class 0'  # otherwise its checkpoint had no names
        self.trained_on = tuple(self.session.names) if named else None

    def forward(
        self, inputs: Tensor, data_samples: list[DetDataSample] | None = None, mode: str = 'predict'
    ) -> list[DetDataSample]:
        """Detect in a batch.

        Args:
            inputs: Normalised images, (B, channels, H, W).
            data_samples: Data samples of the images; predictions are added.
            mode: Only ``'predict'``.
        """
        if mode != 'predict' or data_samples is None:
            raise UserError('an exported file can only predict: train or profile the checkpoint instead')
        images = inputs.cpu().numpy()
        limits = Limits(self.test_cfg['score_thr'], self.test_cfg['nms']['iou_threshold'])
        size = self.session.meta['batch'] or len(images)
        parts = [images[i : i + size] for i in range(0, len(images), size)]
        detected = [one for part in parts for one in self.session.detect(part, limits)]
        clip = self.test_cfg.get('clip_boxes', True)
        for sample, detections in zip(data_samples, detected, strict=True):
            pad = sample.metainfo.get('pad_param', np.zeros(4))
            placement = Placement(tuple(sample.scale_factor), float(pad[2]), float(pad[0]))
            detections = restore(detections, placement, sample.ori_shape, clip)
            fields = {k: v for k, v in zip(FIELDS, detections, strict=True) if v is not None}
            sample.pred_instances = InstanceData(
                **{key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in fields.items()}
            )
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
    preprocessor, test_cfg = cfg.model.data_preprocessor, cfg.model.test_cfg
    cfg.model = dict(type='mmyolo.ExportedDetector', path=str(path), data_preprocessor=preprocessor, test_cfg=test_cfg)
    cfg.load_from, cfg.resume = None, False
    drop_ema(cfg)
    return cfg
