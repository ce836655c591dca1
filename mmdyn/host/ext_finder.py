"""Finder of ``mmcv._ext``: stands in for MMCV's compiled ops where mmcv-lite is installed.

MMDetection and MMYOLO import ``mmcv.ops`` at import time, and that needs the compiled extension ``mmcv._ext``, which
does not build on a current PyTorch for the MMCV that MMYOLO accepts. This finder stands last in ``sys.meta_path``: a
compiled extension is found before it and left untouched.

This file imports only the standard library: the opt-in (``optin.py``) runs it at every start of the
interpreter, and ``mmcv._ext`` may be asked for while ``mmdyn`` is not imported, or only half.
"""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

EXT = 'mmcv._ext'
_HERE = Path(__file__).parent


class ExtLoader(SourceFileLoader):
    """Loads ``ext_ops.py`` as ``mmcv._ext``, and with it the safe loading of checkpoints."""

    def exec_module(self, module):
        """Run ``ext_ops.py``, then allow MMEngine's checkpoint types."""
        super().exec_module(module)
        spec = spec_from_file_location('_mmdyn_checkpoint_types', _HERE / 'checkpoint_types.py')
        types = module_from_spec(spec)
        spec.loader.exec_module(types)
        types.allow_checkpoint_types()


class ExtFinder:
    """Meta-path finder of the stand-in."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Find ``mmcv._ext`` and nothing else."""
        if name != EXT:
            return None
        file = _HERE / 'ext_ops.py'
        return spec_from_file_location(EXT, file, loader=ExtLoader(EXT, str(file)))


def install():
    """Put the finder last in ``sys.meta_path``, once."""
    # By name: the opt-in loads this file under another module name.
    if not any(getattr(finder, '__name__', '') == ExtFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.append(ExtFinder)
