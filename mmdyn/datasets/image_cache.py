"""A cache of decoded and resized images, so that later epochs only read memory: in RAM, or in a file that is mapped.

The images are written one after the other; their sizes are known before any is read, and so is the room they need.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from mmdyn.annotations.cache import cache_folder, locked
from mmdyn.annotations.image_files import file_states
from mmdyn.errors import UserError
from mmdyn.files import replacing

Kind = Literal['ram', 'disk']
USED = 0.9  # of the memory or disk that is free, at most
GIB = 2**30


class ImageCache:
    """Images of n files.

    Args:
        kind: ``'ram'`` is for this process and those that it forks; ``'disk'`` is a file in the cache folder of
            :func:`mmdyn.annotations.cache.cache_folder`, for all processes and later runs.
        paths: The files.
        shapes: Height, width and channels of each image in the cache, (n, 3).
        dtype: Type of the pixels.
        read: Reads and resizes one file.
        source: What the files belong to, for messages.

    Raises:
        UserError: A file has another size than ``shapes`` says.

    Example:
        >>> cache = ImageCache('ram', [digits_image], [(32, 32, 3)], 'uint8', lambda _: np.ones((32, 32, 3)), 'one')
        >>> cache[0].shape
        (32, 32, 3)
    """

    def __init__(
        self,
        kind: Kind,
        paths: Sequence[Path],
        shapes: np.ndarray,
        dtype: np.dtype | type | str,
        read: Callable[[Path], np.ndarray],
        source: str,
    ) -> None:
        self.paths, self.read, self.source = paths, read, source
        self.shapes = np.asarray(shapes, np.int64)
        self.dtype = np.dtype(dtype)
        sizes = self.shapes.prod(1) * self.dtype.itemsize
        self.ends = sizes.cumsum()
        self.pixels: np.ndarray | None = None  # bytes; None where there is no room
        needed = int(sizes.sum())
        path = self._path()
        there = kind == 'disk' and path.is_file() and path.stat().st_size == needed
        free = _free_memory() if kind == 'ram' else shutil.disk_usage(_existing(path.parent)).free
        room = f'{needed / GIB:.2f} GiB of {"memory" if kind == "ram" else "disk"}, {free / GIB:.2f} GiB are free'
        if not there and needed > USED * free:
            print_log(f'The images of {source} are not cached: they need {room}', 'current', logging.WARNING)
            return
        if not there:
            print_log(f'caching {len(paths)} images of {source} in {kind}: {room}', 'current')
        self.pixels = self._in_memory(needed) if kind == 'ram' else self._on_disk(path, needed)

    def __getitem__(self, index: int) -> np.ndarray:
        """Pixels of an image, (H, W, C); not to be written to."""
        assert self.pixels is not None
        end, shape = int(self.ends[index]), self.shapes[index]
        start = end - int(shape.prod()) * self.dtype.itemsize
        return self.pixels[start:end].view(self.dtype).reshape(shape)

    def _path(self) -> Path:
        """The file of a disk cache; it has another name whenever a file or the size of the images changes."""
        stem = hashlib.sha256(self.source.encode('utf-8', 'surrogateescape')).hexdigest()[:24]
        content = file_states(self.paths).tobytes() + self.shapes.tobytes() + str(self.dtype).encode()
        return cache_folder() / f'{stem}-{hashlib.sha256(content).hexdigest()[:24]}.pixels'

    def _in_memory(self, size: int) -> np.ndarray:
        pixels = np.empty(size, np.uint8)
        self._fill(pixels)
        return pixels

    def _on_disk(self, path: Path, size: int) -> np.ndarray | None:
        """The mapped file; one process of this machine writes it."""
        try:
            with locked(path):
                if not path.is_file() or path.stat().st_size != size:
                    self._write(path, size)
            return np.memmap(path, np.uint8, 'r')
        except OSError as e:
            print_log(
                f'The images of {self.source} are not cached, as {path.parent} cannot be written to: {e}', 'current'
            )
            return None

    def _write(self, path: Path, size: int) -> None:
        with replacing(path) as partial:
            with partial.open('wb') as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and would be a crash later
            self._fill(np.memmap(partial, np.uint8, 'r+'))
        for old in path.parent.glob(f'{path.name.partition("-")[0]}-*.pixels'):
            if old != path:
                old.unlink(missing_ok=True)

    def _fill(self, pixels: np.ndarray) -> None:
        def put(index: int) -> None:
            image, shape = self.read(self.paths[index]), tuple(self.shapes[index].tolist())
            if image.shape != shape:
                raise UserError(
                    f'{self.paths[index]} is {image.shape} after resizing, but {shape} by its size in the annotations: '
                    'omit the cache'
                )
            end = int(self.ends[index])
            pixels[end - image.nbytes : end] = np.ascontiguousarray(image, self.dtype).reshape(-1).view(np.uint8)

        with ThreadPoolExecutor() as pool:
            numbers = range(len(self.paths))
            for _ in tqdm(pool.map(put, numbers), total=len(numbers), desc='caching', unit='image', disable=None):
                pass


def _free_memory() -> int:
    """Bytes of memory that can be used without swapping."""
    with open('/proc/meminfo') as file:
        values = dict(line.split(':') for line in file)
    return int(values['MemAvailable'].split()[0]) * 1024


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else _existing(folder.parent)
