"""A detector from a config and a checkpoint, with the interface of an exported file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope

from mmdyn.checkpoints import classes_of, load_checkpoint, refuse_other_architecture, state_dict_of
from mmdyn.errors import UserError
from mmdyn.layers import upcycled_state
from mmdyn.models.build import build_model
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
        content = load_checkpoint(checkpoint)
        try:
            torch.device(device or 'cpu')
        except RuntimeError as e:
            raise UserError(f'invalid device {device}: set cpu, cuda or cuda:0') from e
        device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
        with config_errors():
            model = revert_sync_batchnorm(build_model(cfg))
        tensors = state_dict_of(content, checkpoint)
        tensors = upcycled_state(model, tensors) or tensors
        refuse_other_architecture(model, tensors, str(checkpoint))
        model.load_state_dict(tensors, strict=False)  # counters of batch norms may be missing
        self.model = model.to(device)
        self.model.cfg = cfg
        self.names = class_names(classes_of(content), cfg, self.model.bbox_head.num_classes)
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
