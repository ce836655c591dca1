"""mmdyn: dynamic convolution for MMDetection and MMYOLO.

The import prepares the host packages and registers all classes.
"""

from mmdyn import host

host.prepare()

from mmdyn import classify, convert, datasets, engine, layers, metrics, models, reports, routing  # noqa: E402, F401
from mmdyn.inference import load_model  # noqa: E402
from mmdyn.layers import C3k2_DynamicConv, DynamicConv, FDConv, ODConv, dynamic_conv2d  # noqa: E402
from mmdyn.version import __version__  # noqa: E402

__all__ = [
    'C3k2_DynamicConv',
    'DynamicConv',
    'FDConv',
    'ODConv',
    '__version__',
    'datasets',
    'dynamic_conv2d',
    'engine',
    'host',
    'layers',
    'load_model',
    'metrics',
    'models',
    'routing',
]
