"""What MMEngine's runner is given: hooks and optimizer wrappers."""

from .buffers import AverageBuffersHook
from .channels_last import ChannelsLastHook
from .checkpoint import AtomicCheckpointHook, CheckpointGuardHook
from .class_check import ClassCheckHook
from .close_mosaic import CloseMosaicHook
from .compile import CompileHook
from .ema import YOLOEMA, YOLOEMAHook
from .fold import FoldHook
from .optim_wrapper import CPUAmpOptimWrapper, YOLOAmpOptimWrapper, YOLOCPUAmpOptimWrapper, YOLOOptimWrapper
from .param_groups import YOLOOptimizerConstructor
from .resume import ResumeHook
from .routing_hook import RoutingHook
from .schedule import YOLOScheduleHook
from .temperature import TemperatureHook

__all__ = [
    'YOLOEMA',
    'AtomicCheckpointHook',
    'AverageBuffersHook',
    'CPUAmpOptimWrapper',
    'ChannelsLastHook',
    'CheckpointGuardHook',
    'ClassCheckHook',
    'CloseMosaicHook',
    'CompileHook',
    'FoldHook',
    'ResumeHook',
    'RoutingHook',
    'TemperatureHook',
    'YOLOAmpOptimWrapper',
    'YOLOCPUAmpOptimWrapper',
    'YOLOEMAHook',
    'YOLOOptimWrapper',
    'YOLOOptimizerConstructor',
    'YOLOScheduleHook',
]
