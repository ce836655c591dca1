"""Data sets: COCO format with checks, the digits made on the spot, and conversion from Pascal VOC."""

from .affine_warp import YOLO11RandomAffine
from .buffered_mosaic import BufferedMosaic
from .checked_coco import CheckedCocoDataset
from .coco_metric import DatasetCocoMetric
from .digits import DigitsDataset, make_digits
from .long_side_resize import LongSideResize
from .rectangles import ImageShapePolicy, SameShapeBatchSampler
from .voc_to_coco import convert_voc

__all__ = [
    'BufferedMosaic',
    'CheckedCocoDataset',
    'DatasetCocoMetric',
    'DigitsDataset',
    'ImageShapePolicy',
    'LongSideResize',
    'SameShapeBatchSampler',
    'YOLO11RandomAffine',
    'convert_voc',
    'make_digits',
]
