"""Finder of ``mmcv._ext``: replaces MMCV's compiled ops if mmcv-lite is installed.

MMDetection and MMYOLO import ``mmcv.ops`` at import time, and that needs the compiled extension ``mmcv._ext``. The MMCV
version that MMYOLO accepts does not build on a current PyTorch. This finder is last in ``sys.meta_path``, so a compiled
extension takes precedence and remains unchanged.

This file imports only the standard library: the opt-in (``optin.py``) runs it at every start of the interpreter, and
``mmcv._ext`` may be imported before ``mmdyn`` or during its import.
"""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

EXT = 'mmcv._ext'
_HERE = Path(__file__).parent


class ExtLoader(SourceFileLoader):
    """Loads ``ext_ops.py`` as ``mmcv._ext``, and enables the safe loading of checkpoints."""

    def exec_module(self, module):
        """Run ``ext_ops.py``, then allow MMEngine's checkpoint types."""
        super().exec_module(module)
        spec = spec_from_file_location('_mmdyn_checkpoint_types', _HERE / 'checkpoint_types.py')
        types = module_from_spec(spec)
        spec.loader.exec_module(types)
        types.allow_checkpoint_types()


class ExtFinder:
    """Meta-path finder of the replacement."""

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
