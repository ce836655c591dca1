"""Files, written all or nothing: beside their place first, and moved there when they are whole."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdyn.errors import UserError

PARTIAL = '.partial'


def new_file(path: str | Path) -> Path:
    """A path at which nothing exists.

    Raises:
        UserError: Something does.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise UserError(f'{path} exists and is not overwritten. Give another name, or remove it')
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to in place of ``path``.

    What was written there is moved to ``path`` when the block ends well, also across a power failure, and removed
    when it does not. The folder of ``path`` is made.

    Args:
        path: The file to write or to replace.

    Yields:
        A path with the same suffix in the same folder.

    Example:
        >>> with replacing(folder / 'numbers.txt') as partial:
        ...     _ = partial.write_text('1 2 3')
        >>> (folder / 'numbers.txt').read_text()
        '1 2 3'
    """
    partial = partial_path(path)
    try:
        yield partial
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: str | Path) -> Path:
    """Where a file is written until it is whole: beside ``path``, with the same suffix. Makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}')
    partial.unlink(missing_ok=True)  # a link of that name would be followed
    return partial


def move_into_place(partial: Path, path: str | Path) -> None:
    """Replace ``path`` by a whole file of :func:`partial_path`, so that a power failure leaves the one or the other."""
    _synchronise(partial)
    os.replace(partial, path)
    with suppress(OSError):  # some network file systems synchronise no folders
        _synchronise(Path(path).parent)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: str | Path) -> None:
    """Remove what processes that were killed while writing left in a folder; no other may be writing there.

    Args:
        folder: The folder; its subfolders stay as they are.
    """
    for partial in Path(folder).glob(f'.*{PARTIAL}*'):
        partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes, all or nothing."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write text in UTF-8, all or nothing."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Write JSON, all or nothing."""
    write_text(path, json.dumps(content, indent=indent))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write a picture, all or nothing.

    Args:
        path: The file; its suffix says the format.
        image: Bytes as BGR, (H, W, 3).

    Raises:
        UserError: OpenCV cannot write it.
    """
    with replacing(path) as partial:
        if not cv2.imwrite(str(partial), image):
            raise UserError(f'cannot write {path}: is {Path(path).suffix} a format that OpenCV writes?')
