"""Atomic file writing: a temporary file in the same folder is moved to the final path when it is complete.

Also the texts of pages and tables that are written.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
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
        UserError: A file exists there.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise UserError(f'{path} exists and is not overwritten. Set another name, or remove it')
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to in place of ``path``.

    After the block the file is moved to ``path``, safely across a power failure; after an error it is removed. The
    folder of ``path`` is created.

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
    """Path of the temporary file for ``path``: same folder, same suffix. Creates the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}')
    partial.unlink(missing_ok=True)  # a symbolic link of this name would be followed
    return partial


def move_into_place(partial: Path, path: str | Path) -> None:
    """Replace ``path`` by a complete file of :func:`partial_path`; after a power failure either version is intact."""
    _synchronise(partial)
    os.replace(partial, path)
    with suppress(OSError):  # some network file systems do not synchronise folders
        _synchronise(Path(path).parent)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: str | Path) -> None:
    """Remove temporary files of killed processes from a folder; no other process may be writing there.

    Args:
        folder: The folder; its subfolders remain unchanged.
    """
    for partial in Path(folder).glob(f'.*{PARTIAL}*'):
        partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write text in UTF-8 atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=indent))


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def render_page(template: Path, **values: Any) -> str:
    """A page of a Jinja template, with all values escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template.name).render(**values)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image atomically.

    Args:
        path: The file; its suffix sets the format.
        image: BGR uint8 array, (H, W, 3).

    Raises:
        UserError: OpenCV cannot write it.
    """
    with replacing(path) as partial:
        if not cv2.imwrite(str(partial), image):
            raise UserError(f'cannot write {path}: is {Path(path).suffix} a format that OpenCV writes?')
