"""Building the model of a config, and running its network."""

import copy
from typing import Any

from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config in its own scope, in eval mode.

    Args:
        cfg: Config with ``model`` and ``default_scope``; it is not changed, although mmdet's detectors write into it.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return MODELS.build(copy.deepcopy(cfg.model)).eval()


def input_channels(model: nn.Module) -> int:
    """Channels of the images that a detector takes, which its backbone states; 3 for those of other packages."""
    return getattr(getattr(model, 'backbone', None), 'input_channels', 3)


def run_network(model: nn.Module, images: Tensor) -> Any:
    """Run a detector's network, without decoding boxes.

    Args:
        model: Detector whose ``forward(inputs, data_samples, mode='tensor')`` is MMEngine's.
        images: Images, (B, channels, H, W). Two-stage detectors also get their size.

    Returns:
        The raw outputs of the model.
    """
    size = tuple(images.shape[2:])
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    samples = [DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0))) for _ in images]
    return model(images, samples, mode='tensor')
