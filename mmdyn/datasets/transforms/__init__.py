"""Transforms of images and boxes; importing this registers them."""

from .colour import YOLO11HSVRandomAug
from .load import LoadImage
from .mixup import YOLO11MixUp
from .mosaic import BufferedMosaic
from .pack import PackInputs
from .random_affine import YOLO11RandomAffine
from .resize import LongSideResize

__all__ = [
    'BufferedMosaic',
    'LoadImage',
    'LongSideResize',
    'PackInputs',
    'YOLO11HSVRandomAug',
    'YOLO11MixUp',
    'YOLO11RandomAffine',
]
