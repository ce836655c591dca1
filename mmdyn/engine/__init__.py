"""What MMEngine's runner is given: hooks and optimizer wrappers."""

from .channels_last import ChannelsLastHook
from .checkpoint import AtomicCheckpointHook, CheckpointGuardHook
from .class_count import ClassCountHook
from .close_mosaic import CloseMosaicHook
from .optim_wrapper import CPUAmpOptimWrapper, YOLOAmpOptimWrapper, YOLOOptimWrapper
from .schedule import YOLOEMAHook, YOLOScheduleHook

__all__ = [
    'AtomicCheckpointHook',
    'CPUAmpOptimWrapper',
    'ChannelsLastHook',
    'CheckpointGuardHook',
    'ClassCountHook',
    'CloseMosaicHook',
    'YOLOAmpOptimWrapper',
    'YOLOEMAHook',
    'YOLOOptimWrapper',
    'YOLOScheduleHook',
]
