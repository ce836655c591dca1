"""Optional packages of MMYOLO that are installed but broken are treated as absent, with a warning that names them.

MMYOLO imports mmpose if it is installed, and expects an ``ImportError`` if not. mmpose needs xtcocotools, whose wheel
raises ``ValueError`` under NumPy 2, so ``import mmyolo`` would fail.
"""

import importlib
import importlib.util
import sys
import traceback
import warnings

OPTIONAL = {'mmpose': ('mmpose.datasets', 'mmpose.datasets.datasets.utils')}  # modules that MMYOLO imports of each


def treat_broken_as_absent() -> None:
    """Import every optional package that is installed, and hide those that fail."""
    for package, modules in OPTIONAL.items():
        if package in sys.modules or importlib.util.find_spec(package) is None:
            continue
        try:
            for module in modules:
                importlib.import_module(module)
        except ImportError:
            continue  # MMYOLO handles these
        except Exception as e:  # a broken extension may raise any error
            frames = [frame for frame, _ in traceback.walk_tb(e.__traceback__)]
            culprit = frames[-1].f_globals.get('__name__', package).split('.')[0]
            for name in [name for name in sys.modules if name.split('.')[0] == package]:
                del sys.modules[name]
            sys.modules[package] = None  # type: ignore[assignment]  # importing it now raises ImportError
            warnings.warn(
                f'{package} is installed but cannot be imported, because {culprit} raises {type(e).__name__}: {e}. '
                f'It is treated as absent. Install a {culprit} that fits this NumPy, or uninstall {package}',
                stacklevel=2,
            )
