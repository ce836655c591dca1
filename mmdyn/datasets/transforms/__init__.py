"""Transforms of images, boxes, oriented or not, outlines and keypoints; importing this registers them."""

from .colour import YOLO11HSVRandomAug
from .keypoints import KeypointFlip, LoadKeypoints
from .load import LoadImage
from .mixup import YOLO11MixUp
from .mosaic import BufferedMosaic
from .oriented import LoadOrientedBoxes, OrientBoxes
from .outlines import CopyPaste, DrawMasks, LoadOutlines
from .pack import PackInputs
from .random_affine import YOLO11RandomAffine
from .resize import LetterBox, LongSideResize

__all__ = [
    'BufferedMosaic',
    'CopyPaste',
    'DrawMasks',
    'KeypointFlip',
    'LetterBox',
    'LoadImage',
    'LoadKeypoints',
    'LoadOrientedBoxes',
    'LoadOutlines',
    'LongSideResize',
    'OrientBoxes',
    'PackInputs',
    'YOLO11HSVRandomAug',
    'YOLO11MixUp',
    'YOLO11RandomAffine',
]
