"""A cache of decoded and resized images, so that later epochs only read memory: in RAM, or in a file that is mapped.

The images are written one after the other; their sizes are known before any is read, and so is the room they need.
"""

import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
        self.shapes, self.dtype = np.asarray(shapes, np.int64), np.dtype(dtype)
        sizes = self.shapes.prod(1) * self.dtype.itemsize
        self.ends = sizes.cumsum()
        fill = functools.partial(self._fill, paths, read)
        # bytes; None where there is no room
        self.pixels = self._in_memory(fill, source) if kind == 'ram' else self._on_disk(fill, paths, source)

    def __getitem__(self, index: int) -> np.ndarray:
        """Pixels of an image, (H, W, C); not to be written to."""
        assert self.pixels is not None
        end, shape = int(self.ends[index]), self.shapes[index]
        start = end - int(shape.prod()) * self.dtype.itemsize
        return self.pixels[start:end].view(self.dtype).reshape(shape)

    def _has_room(self, free: int, of: str, source: str) -> bool:
        """Say how much is needed and free."""
        needed = int(self.ends[-1])
        room = f'{needed / GIB:.2f} GiB of {of}, {free / GIB:.2f} GiB are free'
        if needed > USED * free:
            print_log(f'The images of {source} are not cached: they need {room}', 'current', logging.WARNING)
            return False
        print_log(f'caching {len(self.ends)} images of {source}: {room}', 'current')
        return True

    def _in_memory(self, fill: Callable[[np.ndarray], None], source: str) -> np.ndarray | None:
        processes = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))  # of this machine, which all keep their images
        if not self._has_room(_free_memory() // processes, 'memory', source):
            return None
        pixels = np.empty(int(self.ends[-1]), np.uint8)
        fill(pixels)
        return pixels

    def _on_disk(self, fill: Callable[[np.ndarray], None], paths: Sequence[Path], source: str) -> np.ndarray | None:
        """The mapped file; one process of this machine writes it, and replaces that of images that have changed."""
        what = repr((source, self.shapes.tobytes(), self.dtype.str)).encode('utf-8', 'surrogateescape')
        stem, size = hashlib.sha256(what).hexdigest()[:24], int(self.ends[-1])
        path = cache_folder() / f'{stem}-{file_states(paths)[:24]}.pixels'
        try:
            with locked(path):
                if not path.is_file() or path.stat().st_size != size:
                    for old in [*path.parent.glob(f'{stem}-*.pixels'), *path.parent.glob(f'.{stem}-*.pixels')]:
                        old.unlink(missing_ok=True)  # out of date, or of a process that was killed
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if not self._has_room(shutil.disk_usage(path.parent).free, 'disk', source):
                        return None
                    with replacing(path) as partial:
                        with partial.open('wb') as file:  # a full disk is an error here, and would be a crash later
                            os.posix_fallocate(file.fileno(), 0, size)
                        fill(np.memmap(partial, np.uint8, 'r+'))
            return np.memmap(path, np.uint8, 'r')
        except OSError as e:
            print_log(f'The images of {source} are not cached, as {path.parent} cannot be written to: {e}', 'current')
            return None

    def _fill(self, paths: Sequence[Path], read: Callable[[Path], np.ndarray], pixels: np.ndarray) -> None:
        def put(index: int) -> None:
            image, shape = read(paths[index]), tuple(self.shapes[index].tolist())
            if image.shape != shape:
                raise UserError(
                    f'{paths[index]} is {image.shape} after resizing, but {shape} by its size in the annotations: '
                    'omit the cache'
                )
            end = int(self.ends[index])
            pixels[end - image.nbytes : end] = np.ascontiguousarray(image, self.dtype).reshape(-1).view(np.uint8)

        with ThreadPoolExecutor() as pool:
            numbers = range(len(paths))
            for _ in tqdm(pool.map(put, numbers), total=len(numbers), desc='caching', unit='image', disable=None):
                pass


def _free_memory() -> int:
    """Bytes of memory that can be used without swapping, on this machine and in this container."""
    with open('/proc/meminfo') as file:
        values = dict(line.split(':') for line in file)
    free = int(values['MemAvailable'].split()[0]) * 1024
    group = Path('/sys/fs/cgroup')
    with suppress(OSError, ValueError):  # no container, or one without a limit
        free = min(free, int((group / 'memory.max').read_text()) - int((group / 'memory.current').read_text()))
    return free
