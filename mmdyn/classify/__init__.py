"""Classification, on mmpretrain; importing this registers it, where mmpretrain is installed."""

from importlib.util import find_spec

from .task import CLASSIFY

__all__ = ['CLASSIFY']

if find_spec('mmpretrain') is not None:
    from .dataset import DigitCrops, ImageFolder
    from .head import YOLO11ClassifyHead
    from .metric import TopAccuracy

    __all__ += ['DigitCrops', 'ImageFolder', 'TopAccuracy', 'YOLO11ClassifyHead']
