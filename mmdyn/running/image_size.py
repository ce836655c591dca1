"""Image sizes of a config: read, and changed wherever something depends on them.

``img_scale`` of a config, (width, height) as in MMYOLO, is the one place that says it; the steps of the pipelines are
set from it here, as a config file cannot change what its base has computed.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmdyn.errors import UserError

from .testing import task_of_config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
STRIDE = 32  # of the coarsest level: sides are multiples of it
SIZED = ('border', 'img_scale', 'img_size', 'scale')  # arguments of steps and of batch shapes, in pixels


def image_size(cfg: Config) -> tuple[int, int]:
    """Image height and width in validation, from the last step that resizes or crops; 640 if there is none.

    Args:
        cfg: Config.
    """
    described = innermost_dataset(cfg.get('val_dataloader') or {})
    steps = [step for step in described.get('pipeline', ()) if 'scale' in step or step['type'].endswith('CenterCrop')]
    scales = [step['scale'] if 'scale' in step else step['size'] for step in steps]
    scale = scales[-1] if scales else 640
    width, height = (scale, scale) if isinstance(scale, int) else scale
    return height, width


def test_size(cfg: Config) -> tuple[int, int]:
    """Height and width that a test image is resized to fit into.

    Raises:
        UserError: The test pipeline has no ``LongSideResize``; or that of a classifier is not as :func:`crop_sizes`
            wants it.
    """
    if task_of_config(cfg).name == 'classify':
        _, crop = crop_sizes(cfg)
        return crop, crop
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'LongSideResize':
            width, height = step['scale']
            return height, width
    raise UserError(
        'the test pipeline of the config has no LongSideResize, which exported files require. '
        'Set it instead of YOLOv5KeepRatioResize'
    )


def crop_sizes(cfg: Config) -> tuple[int, int]:
    """Pixels of the shorter side after resizing, and of the square in the centre, of a classifier's test images.

    Raises:
        UserError: The test pipeline has other steps, which an exported file could not repeat.
    """
    steps = {re.split('[./]', str(step['type']))[-1]: step for step in cfg.test_dataloader.dataset.pipeline}
    resize, crop = (steps.get(name, {}) for name in ('Resize', 'CenterCrop'))
    kept = ('LoadImageFromFile', 'LoadImage', 'NumpyToPIL', 'Resize', 'CenterCrop', 'PILToTensor', 'PackInputs')
    other = [name for name in steps if name not in kept]
    whole = all(isinstance(step.get('size'), int) for step in (resize, crop))
    if other or resize.get('interpolation') != 'bilinear' or not whole:
        raise UserError(
            'exported files of a classifier resize the shorter side bilinearly to one number of pixels, and take the '
            f'centre. The test pipeline has {", ".join(other) or "other arguments"}: set Resize and CenterCrop of '
            "torchvision, each with size=N, and interpolation='bilinear', as in configs/_base_/imagenet.py"
        )
    return resize['size'], crop['size']


def set_crop_size(cfg: Config, size: int, resize: int | None = None) -> None:
    """Set the size of the square images of a classifier, wherever a step crops or resizes.

    Args:
        cfg: Config of a classifier, changed in place.
        size: Height and width in pixels.
        resize: Pixels of the shorter side before the centre of a test image is taken; None takes ``size``.
    """
    for loader in LOADERS:
        for step in innermost_dataset(cfg.get(loader) or {}).get('pipeline', ()):
            if 'size' in step:
                step['size'] = resize or size if step['type'].endswith('/Resize') else size


def settle_image_size(cfg: Config) -> None:
    """Set every size from ``img_scale``, where a config or an option has changed it without the pipelines.

    Args:
        cfg: Config.

    Raises:
        UserError: ``img_scale`` is no size.
    """
    if 'img_scale' not in cfg:
        return
    scale = cfg.img_scale
    width, height = (scale, scale) if isinstance(scale, int) else (*scale, 0)[:2]
    stated = {_pair(value) for loader in LOADERS if cfg.get(loader) for _, _, value in _sizes(cfg[loader])}
    if (width, height) not in stated:
        set_image_size(cfg, height, width)


def set_image_size(cfg: Config, height: int, width: int) -> None:
    """Train, validate, test and augment at a size.

    Args:
        cfg: Config, changed in place.
        height: Pixels, rounded up to a multiple of 32.
        width: Likewise.

    Raises:
        UserError: A side is not positive.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> set_image_size(config, 416, 416)
        >>> image_size(config)
        (416, 416)
    """
    for side in (height, width):
        if not isinstance(side, int) or side < 1:
            raise UserError(f'invalid image size {height} x {width}: set both sides to 1 pixel or more')
    rounded = [math.ceil(side / STRIDE) * STRIDE for side in (height, width)]
    if rounded != [height, width]:
        print_log(f'image size {height} x {width}: rounded up to {rounded[0]} x {rounded[1]}, multiples of {STRIDE}')
    height, width = rounded
    old_height, old_width = image_size(cfg)
    ratios = width / old_width, height / old_height
    parts = [cfg[key] for key in cfg if key.endswith(('_dataloader', '_pipeline'))]
    sizes = {(id(step), name): (step, value) for step, name, value in _sizes(parts)}  # parts may share steps
    for (_, name), (step, value) in sizes.items():
        step[name] = _scaled(name, value, ratios)
    for loader in LOADERS[1:]:
        dataset = innermost_dataset(cfg.get(loader) or {})
        if height != width and dataset.get('batch_shapes_cfg'):
            dataset['batch_shapes_cfg'] = None  # rectangles have one long side; this size is every image's
    cfg.img_scale = (width, height)


def innermost_dataset(loader: Any) -> Any:
    """The data set of a loader's config, inside those that repeat it; of a concatenation, the first one."""
    described = loader.get('dataset', {})
    while described.get('dataset') or described.get('datasets'):
        described = described.get('dataset') or described['datasets'][0]
    return described


def _pair(value: Any) -> tuple:
    return (value, value) if isinstance(value, int) else tuple(value)


def _scaled(name: str, value: Any, ratios: tuple[float, float]) -> Any:
    """A size in other units; test-time augmentation has others than the config's, rounded to the stride."""
    if isinstance(value, int):
        return round(value * max(ratios))
    if name == 'border':
        return tuple(round(side * ratio) for side, ratio in zip(value, ratios, strict=True))
    return tuple(math.ceil(side * ratio / STRIDE) * STRIDE for side, ratio in zip(value, ratios, strict=True))


def _sizes(node: Any) -> Iterator[tuple[Any, str, Any]]:
    """Every size below a node of a config: the step that has it, the name of the argument, its value."""
    if isinstance(node, dict):
        for name, value in node.items():
            numbers = value if isinstance(value, list | tuple) else [value]
            if name in SIZED and len(numbers) <= 2 and all(isinstance(n, int) for n in numbers):
                yield node, name, value
            else:
                yield from _sizes(value)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _sizes(child)
