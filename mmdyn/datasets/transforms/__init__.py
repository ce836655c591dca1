"""Transforms of images and boxes; importing this registers them."""

from .mosaic import BufferedMosaic
from .random_affine import YOLO11RandomAffine
from .resize import LongSideResize

__all__ = ['BufferedMosaic', 'LongSideResize', 'YOLO11RandomAffine']
