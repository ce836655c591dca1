"""A detector from a config and a checkpoint, with the interface of an exported file."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector, init_detector
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdyn.checkpoints import check_checkpoint, classes_of, refuse_other_architecture
from mmdyn.errors import UserError
from mmdyn.running.image_channels import image_channels, keeps_sixteen_bits
from mmdyn.running.loading import class_names
from mmdyn.running.messages import config_errors

from .onnx_detector import Detections


class CheckpointDetector:
    """Detects in images, as :class:`mmdyn.inference.onnx_detector.OnnxDetector` does.

    Args:
        cfg: Config.
        checkpoint: Its checkpoint.
        device: Device of the model; None takes a GPU if available.

    Raises:
        UserError: The config does not build, or the checkpoint does not load or fit.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, device: str | None = None) -> None:
        content = check_checkpoint(str(checkpoint))
        try:
            torch.device(device or 'cpu')
        except RuntimeError as e:
            raise UserError(f'invalid device {device}: set cpu, cuda or cuda:0') from e
        device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
        with config_errors(), contextlib.redirect_stdout(io.StringIO()):  # MMEngine prints the path it loads from
            self.model = init_detector(cfg, str(checkpoint), palette='random', device=device)
        if content is not None:
            refuse_other_architecture(self.model, content, str(checkpoint))
        classes = classes_of(content) if content is not None else self.model.dataset_meta['classes']
        self.names = class_names(classes, cfg, self.model.bbox_head.num_classes)
        self.channels = image_channels(cfg)
        self.to_float32 = keeps_sixteen_bits(cfg)
        _, *rest = get_test_pipeline_cfg(cfg)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            self.pipeline = Compose([dict(type='mmdet.LoadImageFromNDArray'), *rest])

    def __call__(self, images: Sequence[np.ndarray], score: float) -> list[Detections]:
        """Detect in a batch.

        Args:
            images: Arrays as :func:`mmdyn.datasets.pixels.read_pixels` gives them, (H, W, channels) each.
            score: Score threshold.
        """
        detections: list[Detections] = []
        for sample in inference_detector(self.model, list(images), self.pipeline):
            kept = sample.pred_instances[sample.pred_instances.scores > score].cpu()
            detections.append(Detections(kept.bboxes.numpy(), kept.scores.numpy(), kept.labels.numpy()))
        return detections
