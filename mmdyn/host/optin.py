"""The opt-in for stock entry points (``mim``, mmdet's tools, ``DetInferencer``), which import mmdet before any config.

Writes one ``.pth`` file into the environment's site-packages, which installs the finder of ``mmcv._ext`` at every
start of this environment's Python: in workers, in children of torchrun, in any script. Removing the file undoes it.
No package is changed.
"""

import sysconfig
from pathlib import Path

from mmdyn.errors import UserError

NAME = 'mmdyn_host.pth'


def optin_file() -> Path:
    """Path of the opt-in file of this environment, which need not exist."""
    return Path(sysconfig.get_path('purelib')) / NAME


def startup_line() -> str:
    """The line that the interpreter runs at its start; it must not fail if the package was removed."""
    finder = str(Path(__file__).with_name('ext_finder.py'))
    return (
        f'import os, importlib.util as u; p = {finder!r}; '
        "s = u.spec_from_file_location('_mmdyn_ext_finder', p) if os.path.exists(p) else None; "
        'm = s and u.module_from_spec(s); s and s.loader.exec_module(m); s and m.install()\n'
    )


def enable() -> Path:
    """Opt in.

    Returns:
        The file that was written.

    Raises:
        UserError: site-packages cannot be written.
    """
    try:
        optin_file().write_text(startup_line())
    except OSError as e:
        raise UserError(f'cannot write {optin_file()} ({e.strerror}); use your own virtual environment') from e
    return optin_file()


def disable() -> Path:
    """Undo the opt-in.

    Returns:
        The file that was removed.
    """
    try:
        optin_file().unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f'cannot remove {optin_file()} ({e.strerror})') from e
    return optin_file()
