"""What was read once, as arrays in files of a cache folder: mapped into memory, so that processes share one copy.

The files are safetensors, which hold no code. A folder that cannot be written to means no cache, and nothing else.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmdyn.files import replacing

FORMAT = 2  # one more whenever what is written changes
Arrays = dict[str, np.ndarray]

_memory: dict[str, tuple[Arrays, str | None]] = {}  # of this process, by name of the file


def cache_folder() -> Path:
    """``MMDYN_CACHE``, or ``mmdyn`` in the user's cache folder."""
    user = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('MMDYN_CACHE') or Path(user, 'mmdyn'))


def cached(source: str, state: Any, build: Callable[[], Arrays]) -> tuple[Arrays, str | None]:
    """Arrays that were made from files, made once for all processes of this machine.

    Args:
        source: What they are made from; the latest state of a source is kept.
        state: Sizes and times of the files, or whatever else changes with their content.
        build: Makes the arrays.

    Returns:
        The arrays, and the file that they are mapped from; None where they could not be written.
    """
    stem = hashlib.sha256(source.encode('utf-8', 'surrogateescape')).hexdigest()[:24]
    name = f'{stem}-{hashlib.sha256(repr((FORMAT, state)).encode()).hexdigest()[:24]}.safetensors'
    if name not in _memory:
        for old in [known for known in _memory if known.startswith(stem)]:
            del _memory[old]
        _memory[name] = _from_file(cache_folder() / name, build)
    return _memory[name]


def _from_file(path: Path, build: Callable[[], Arrays]) -> tuple[Arrays, str | None]:
    with locked(path) as writable:
        with suppress(OSError, SafetensorError):  # not there, or not whole
            return map_arrays(path), str(path)
        arrays = build()
        if writable:
            try:
                _write(path, arrays)
                return map_arrays(path), str(path)
            except (OSError, SafetensorError) as e:
                print_log(f'No cache of the annotations is kept, as {path.parent} cannot be written to: {e}', 'current')
        return arrays, None


def map_arrays(path: Path) -> Arrays:
    """The arrays of a file, which are read from it when they are used.

    Raises:
        SafetensorError: The file is not whole.
        OSError: It cannot be read.
    """
    with safe_open(path, framework='pt') as file:  # PyTorch's tensors are mapped, NumPy's arrays would be copied
        return {key: file.get_tensor(key).numpy() for key in file.keys()}  # noqa: SIM118 (the file is no dict)


def _write(path: Path, arrays: Arrays) -> None:
    with replacing(path) as partial:
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, partial)
    for old in path.parent.glob(f'{path.name.partition("-")[0]}-*.safetensors'):
        if old != path:
            old.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Let one process of this machine build a file of the cache folder; yields whether that can be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f'{path.name.partition("-")[0]}.lock').open('w')
    except OSError:
        yield False
        return
    with file:
        with suppress(OSError):  # a file system without locks: both may build, and either file is whole
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True
