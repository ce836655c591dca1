"""Image files of a data set: their sizes, and what is wrong with them, from headers and ends of the files."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from .cache import cached
from .table import Strings

EXIF_ORIENTATION = 0x0112  # 5 to 8 mean that the picture is shown with its sides swapped
# The last bytes of a complete file in the two common formats.
ENDINGS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
MANY = 5000  # files, from which a progress bar is shown


class ImageFiles(NamedTuple):
    """What the headers of n image files say.

    Args:
        sizes: Width and height as the file stores them, (n, 2); zero where it is no image.
        turned: Whether the picture is shown with its sides swapped, (n,).
        faults: What is wrong with each file; empty strings where nothing is.
    """

    sizes: np.ndarray
    turned: np.ndarray
    faults: Sequence[str]

    def shown_sizes(self) -> np.ndarray:
        """Width and height as the pictures are shown, (n, 2)."""
        return np.where(self.turned[:, None], self.sizes[:, ::-1], self.sizes)

    def faults_for(self, sizes: np.ndarray) -> dict[int, str]:
        """Faults by index, those included whose size is not the one that annotations state.

        Args:
            sizes: Width and height that the annotations state, (n, 2).
        """
        same = (self.sizes == sizes).all(1) | (self.turned & (self.sizes[:, ::-1] == sizes).all(1))
        faults = {}
        for i in np.flatnonzero(~same | ~self.sizes.all(1)).tolist():  # a file with a fault has no size
            (width, height), (stated_width, stated_height) = self.sizes[i], sizes[i]
            other = f'{width}x{height} pixels, but the annotations state {stated_width}x{stated_height}'
            faults[i] = self.faults[i] or other
        return faults


def file_states(paths: Sequence[Path]) -> str:
    """A hash of the paths of files, their sizes and times of change: another one whenever they are others."""
    states = np.full((len(paths), 2), -1, np.int64)  # -1 where there is no file
    for row, path in zip(states, paths, strict=True):
        try:
            status = os.stat(path)
        except OSError:
            continue
        row[:] = status.st_size, status.st_mtime_ns
    names = '\n'.join(str(path.absolute()) for path in paths)
    return hashlib.sha256(states.tobytes() + names.encode('utf-8', 'surrogateescape')).hexdigest()


def look_at_images(paths: Sequence[Path], source: str) -> ImageFiles:
    """Read the header and the end of every image, or take them from the cache if no file has changed.

    Args:
        paths: The files.
        source: What they belong to, for the progress bar and the cache.
    """

    def build() -> dict[str, np.ndarray]:
        with ThreadPoolExecutor() as pool:
            rows = list(tqdm(
                pool.map(_look_at, paths),
                total=len(paths),
                desc=f'checking images of {source}',
                disable=len(paths) < MANY,
            ))  # fmt: skip
        faults = Strings.of(row[2] for row in rows)
        return dict(
            sizes=np.array([row[0] for row in rows], np.int32).reshape(-1, 2),
            turned=np.array([row[1] for row in rows], bool),
            fault_bytes=faults.data,
            fault_ends=faults.ends,
        )

    arrays, _ = cached(f'images of {source}', file_states(paths), build)
    return ImageFiles(arrays['sizes'], arrays['turned'], Strings(arrays['fault_bytes'], arrays['fault_ends']))


def _look_at(path: Path) -> tuple[tuple[int, int], bool, str]:
    """Size, whether it is shown turned, and the fault of an image file; its pixels are read in doubt only."""
    if not path.is_file():
        return (0, 0), False, 'missing'
    try:
        with Image.open(path) as image:
            turned = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1) >= 5  # that of PNG reads all pixels
            if not _ends_well(path, image.format):
                image.load()
            return image.size, turned, ''
    except Image.DecompressionBombError:
        return (0, 0), False, 'more pixels than an image should have'
    except Exception as e:  # Pillow raises many types for damaged files
        return (0, 0), False, 'truncated' if 'truncated' in str(e) else f'damaged or not an image ({e})'


def _ends_well(path: Path, kind: str | None) -> bool:
    if kind not in ENDINGS:
        return False
    with path.open('rb') as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return ENDINGS[kind] in file.read()
