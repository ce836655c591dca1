"""Data sets, transforms and samplers: COCO format with checks, generated digits, conversion of Pascal VOC."""

from .array_dataset import ArrayDataset
from .checked_coco import CheckedCocoDataset
from .collate import collate_targets
from .data_source import DataSource, find_data
from .digits import DigitsDataset, make_digits, make_digits_video
from .dota import DOTADataset
from .image_cache import ImageCache
from .keypoints import Keypoints
from .oriented import OrientedOutlines
from .outlines import Outlines
from .photograph import photograph
from .rectangles import ImageShapePolicy, SameShapeBatchSampler
from .transforms import (
    BufferedMosaic,
    CopyPaste,
    DrawMasks,
    KeypointFlip,
    LetterBox,
    LoadImage,
    LoadKeypoints,
    LoadOrientedBoxes,
    LoadOutlines,
    LongSideResize,
    OrientBoxes,
    PackInputs,
    YOLO11HSVRandomAug,
    YOLO11MixUp,
    YOLO11RandomAffine,
)
from .voc_to_coco import convert_voc
from .voc_xml import VOCXmlDataset
from .yolo_text import YOLOTextDataset

__all__ = [
    'ArrayDataset',
    'BufferedMosaic',
    'CheckedCocoDataset',
    'CopyPaste',
    'DOTADataset',
    'DataSource',
    'DigitsDataset',
    'DrawMasks',
    'ImageCache',
    'ImageShapePolicy',
    'KeypointFlip',
    'Keypoints',
    'LetterBox',
    'LoadImage',
    'LoadKeypoints',
    'LoadOrientedBoxes',
    'LoadOutlines',
    'LongSideResize',
    'OrientBoxes',
    'OrientedOutlines',
    'Outlines',
    'PackInputs',
    'SameShapeBatchSampler',
    'VOCXmlDataset',
    'YOLO11HSVRandomAug',
    'YOLO11MixUp',
    'YOLO11RandomAffine',
    'YOLOTextDataset',
    'collate_targets',
    'convert_voc',
    'find_data',
    'make_digits',
    'make_digits_video',
    'photograph',
]
