"""Channels of a config's images: the first convolution, the normalisation, and the steps that load images."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmdyn.datasets.pixels import MAX_CHANNELS
from mmdyn.errors import UserError

from .testing import task_of_config

LOADING = ('LoadImage', 'LoadImageFromFile')


def image_channels(cfg: Config) -> int:
    """Channels that the backbone takes; 3 if the config does not say."""
    return (cfg.get('model') or {}).get('backbone', {}).get('input_channels', 3)


def settle_channels(cfg: Config) -> None:
    """Load and normalise images as the backbone of the config takes them, where that is not three channels.

    Args:
        cfg: Config, changed in place.

    Raises:
        UserError: The number is invalid.
    """
    if image_channels(cfg) != 3:
        set_channels(cfg, image_channels(cfg))


def set_channels(cfg: Config, channels: int, to_float32: bool | None = None) -> None:
    """Train, validate and test with images of a number of channels.

    Args:
        cfg: Config, changed in place.
        channels: 1 for grey, 3 for colours, 2 or 4 for files that have as many.
        to_float32: Keep 16 bits; None leaves the steps as they are.

    Raises:
        UserError: The number is invalid.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> set_channels(config, 1)
        >>> config.model.backbone.input_channels, config.model.data_preprocessor['std']
        (1, [255.0])
    """
    if channels not in range(1, MAX_CHANNELS + 1):
        raise UserError(f'invalid number of image channels {channels}: set it to 1 to {MAX_CHANNELS}')
    if task_of_config(cfg).name == 'classify' and channels != 3:
        raise UserError(f'invalid number of image channels {channels}: images of a classifier have 3 channels')
    if channels != image_channels(cfg):
        cfg.model.backbone.input_channels = channels
    preprocessor = cfg.model.data_preprocessor
    if channels != 3 and preprocessor.get('bgr_to_rgb'):  # one value for all channels, which have no order of colours
        preprocessor.update(mean=preprocessor.mean[:1], std=preprocessor.std[:1], bgr_to_rgb=False)
    for step in loading_steps(cfg):
        if channels != 3 or 'channels' in step:
            step['channels'] = channels
        if to_float32 is not None:
            step['to_float32'] = to_float32
        if channels != 3 or to_float32:
            step['type'] = 'mmyolo.LoadImage'


def keeps_sixteen_bits(cfg: Config) -> bool:
    """Whether a step that loads images keeps more than 8 bits."""
    return any(step.get('to_float32', False) for step in loading_steps(cfg))


def loading_steps(cfg: Config) -> Iterator[Any]:
    """Every step of the pipelines that loads an image."""
    yield from _loading([cfg[key] for key in cfg if key.endswith(('_dataloader', '_pipeline'))])


def _loading(node: Any) -> Iterator[Any]:
    if isinstance(node, dict) and str(node.get('type')).rpartition('.')[2] in LOADING:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from _loading(child)
