"""Data sets, transforms and samplers: COCO format with checks, generated digits, conversion of Pascal VOC."""

from .checked_coco import CheckedCocoDataset
from .digits import DigitsDataset, make_digits
from .photograph import photograph
from .rectangles import ImageShapePolicy, SameShapeBatchSampler
from .transforms import BufferedMosaic, LongSideResize, YOLO11RandomAffine
from .voc_to_coco import convert_voc

__all__ = [
    'BufferedMosaic',
    'CheckedCocoDataset',
    'DigitsDataset',
    'ImageShapePolicy',
    'LongSideResize',
    'SameShapeBatchSampler',
    'YOLO11RandomAffine',
    'convert_voc',
    'make_digits',
    'photograph',
]
