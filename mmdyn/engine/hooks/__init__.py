"""Hooks of MMEngine's runner; importing this registers them."""

from .average_buffers import AverageBuffersHook
from .channels_last import ChannelsLastHook
from .checkpoint import AtomicCheckpointHook
from .checkpoint_guard import CheckpointGuardHook
from .class_check import ClassCheckHook
from .close_mosaic import CloseMosaicHook
from .compile import CompileHook
from .ema import YOLOEMA, YOLOEMAHook
from .epoch_line import EpochLineHook
from .fold import FoldHook
from .freeze import FreezeHook
from .resume import ResumeHook
from .schedule import YOLOScheduleHook
from .temperature import TemperatureHook

__all__ = [
    'YOLOEMA',
    'AtomicCheckpointHook',
    'AverageBuffersHook',
    'ChannelsLastHook',
    'CheckpointGuardHook',
    'ClassCheckHook',
    'CloseMosaicHook',
    'CompileHook',
    'EpochLineHook',
    'FoldHook',
    'FreezeHook',
    'ResumeHook',
    'TemperatureHook',
    'YOLOEMAHook',
    'YOLOScheduleHook',
]
