"""Layers that any MM package can use; importing this registers them in the ``mmdyn`` scope."""

from .c2psa import C2PSA
from .c3k2 import C3k, C3k2, C3k2_DynamicConv
from .conv_unit import build_block, build_conv_unit, find_layer
from .dynamic_conv import DynamicConv, dynamic_conv2d, dynamic_layers
from .export_forms import export_form
from .fdconv import FDConv
from .folding import fold_batch_norm, fold_batch_norms, fold_scale
from .global_mean import global_mean
from .odconv import ODConv
from .recording import record_routing
from .router import Router, build_router
from .sppf import SPPF
from .upcycling import upcycle, upcycle_conv, upcycled_state

__all__ = [
    'C2PSA',
    'SPPF',
    'C3k',
    'C3k2',
    'C3k2_DynamicConv',
    'DynamicConv',
    'FDConv',
    'ODConv',
    'Router',
    'build_block',
    'build_conv_unit',
    'build_router',
    'dynamic_conv2d',
    'dynamic_layers',
    'export_form',
    'find_layer',
    'fold_batch_norm',
    'fold_batch_norms',
    'fold_scale',
    'global_mean',
    'record_routing',
    'upcycle',
    'upcycle_conv',
    'upcycled_state',
]
