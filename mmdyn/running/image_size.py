"""Image sizes of a config: for validation and for export."""

from mmengine.config import Config

from mmdyn.errors import UserError


def image_size(cfg: Config) -> tuple[int, int]:
    """Image height and width in validation, from the last resizing step; 640 if there is none.

    Args:
        cfg: Config.
    """
    described = (cfg.get('val_dataloader') or {}).get('dataset', {})
    while 'pipeline' not in described and 'dataset' in described:  # wrapped
        described = described.dataset
    scales = [step['scale'] for step in described.get('pipeline', ()) if 'scale' in step]
    scale = scales[-1] if scales else 640
    width, height = (scale, scale) if isinstance(scale, int) else scale
    return height, width


def long_side(cfg: Config) -> int:
    """Pixels of the long side of a test image.

    Raises:
        UserError: The test pipeline has no ``LongSideResize``.
    """
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'LongSideResize':
            return max(step['scale'])
    raise UserError(
        'the test pipeline of the config has no LongSideResize, which exported files require. '
        'Set it instead of YOLOv5KeepRatioResize'
    )
