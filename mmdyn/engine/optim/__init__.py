"""Optimizer wrappers and parameter groups; importing this registers them."""

from .param_groups import YOLOOptimizerConstructor
from .wrappers import CPUAmpOptimWrapper, YOLOAmpOptimWrapper, YOLOCPUAmpOptimWrapper, YOLOOptimWrapper

__all__ = [
    'CPUAmpOptimWrapper',
    'YOLOAmpOptimWrapper',
    'YOLOCPUAmpOptimWrapper',
    'YOLOOptimWrapper',
    'YOLOOptimizerConstructor',
]
