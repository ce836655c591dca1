"""Pixels of image files: any number of channels, 8 or 16 bits."""

from pathlib import Path

import cv2
import numpy as np
from mmengine import fileio

from mmdyn.errors import UserError

MAX_CHANNELS = 4  # OpenCV warps no more at a time


def read_pixels(
    file: str | Path, channels: int = 3, to_float32: bool = False, backend_args: dict | None = None
) -> np.ndarray:
    """Read an image file.

    Args:
        file: Path or URL.
        channels: 1 converts to grey, 3 to BGR; others take the file's channels, or the pages of a TIFF as channels.
        to_float32: Keep 16 bits, as float32 from 0 to 255; otherwise the upper eight bits are kept.
        backend_args: Where MMEngine gets the file from; None takes a disk, or the prefix of a URL.

    Returns:
        (H, W, channels), uint8 or float32.

    Raises:
        UserError: The file is missing, is not an image, or has another number of channels.

    Example:
        >>> read_pixels(digits_image, channels=1).shape
        (320, 320, 1)
    """
    if not backend_args and '://' not in str(file) and not Path(file).is_file():
        raise UserError(f'no image at {Path(file).absolute()}')
    try:
        data = np.frombuffer(fileio.get(str(file), backend_args), np.uint8)
        image = _decode(data, channels, cv2.IMREAD_ANYDEPTH if to_float32 else 0)
    except (OSError, cv2.error) as e:
        raise UserError(f'{file} cannot be read: {e}') from e
    if image is None:
        raise UserError(f'{file} is not an image that OpenCV reads')
    image = image.reshape(*image.shape[:2], -1)  # grey images have no third dimension
    if image.shape[2] != channels:
        raise UserError(f'{file} has {image.shape[2]} channels, where the model takes {channels}')
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f'{file} has pixels of type {image.dtype}: convert it to 8 or 16 bits')
    if image.dtype == np.uint16:
        return from_sixteen_bits(image, to_float32)
    return image.astype(np.float32) if to_float32 else image


def from_sixteen_bits(image: np.ndarray, to_float32: bool) -> np.ndarray:
    """A uint16 image from 0 to 255: float32, or its upper eight bits as uint8."""
    return image.astype(np.float32) / 257 if to_float32 else (image // 256).astype(np.uint8)


def _decode(data: np.ndarray, channels: int, depth: int) -> np.ndarray | None:
    if channels == 3:
        return cv2.imdecode(data, cv2.IMREAD_COLOR | depth)
    if channels == 1:
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | depth)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is not None and image.shape[2:] != (channels,):
        _, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)
        if len(pages) > 1 and all(page.shape[:2] == image.shape[:2] for page in pages):
            return np.dstack(pages)
    return image


def bits_and_channels(file: str | Path) -> tuple[int, int]:
    """Bits of a pixel's channel, and channels (those of all pages of a TIFF), as the file stores them.

    Raises:
        UserError: The file is missing, or is not an image.
    """
    if not Path(file).is_file():
        raise UserError(f'no image at {Path(file).absolute()}')
    whole, pages = cv2.imdecodemulti(np.frombuffer(Path(file).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if not whole or not pages:
        raise UserError(f'{file} is not an image that OpenCV reads')
    return pages[0].dtype.itemsize * 8, sum(page.shape[2] if page.ndim == 3 else 1 for page in pages)
