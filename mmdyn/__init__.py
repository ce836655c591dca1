"""mmdyn: dynamic convolution for MMDetection and MMYOLO.

Importing it prepares the host packages and registers everything.
"""

from mmdyn import host

host.prepare()

from mmdyn import datasets, engine, layers, models  # noqa: E402
from mmdyn.layers import DynamicConv, dynamic_conv2d  # noqa: E402
from mmdyn.version import __version__  # noqa: E402

__all__ = ['DynamicConv', '__version__', 'datasets', 'dynamic_conv2d', 'engine', 'host', 'layers', 'models']
