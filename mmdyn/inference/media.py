"""Media: iterates over the images of a file, a folder, a video or a camera."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmdyn.datasets.pixels import read_pixels
from mmdyn.errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


class Frame(NamedTuple):
    """One image."""

    name: str
    image: np.ndarray  # (H, W, channels), as read_pixels gives it


class EndsEarlyError(UserError):
    """A video has fewer frames than its header states."""


class Media:
    """Iterable over images, for one pass.

    Args:
        source: Image, folder of images, URL of an image, video, or number of a camera.
        channels: Channels of images, as in :func:`mmdyn.datasets.pixels.read_pixels`; frames of videos have three.
        to_float32: Keep 16 bits of images.

    Attributes:
        count: Number of images; None for a camera.
        fps: Frames per second; None for images.

    Raises:
        UserError: The source does not exist, or OpenCV cannot open it. All images of a folder are opened first, so
            that an invalid one stops the run before any result is written.

    Example:
        >>> media = Media(str(digits_image))
        >>> media.count, [frame.image.shape for frame in media]
        (1, [(320, 320, 3)])
    """

    def __init__(self, source: str, channels: int = 3, to_float32: bool = False) -> None:
        self.source = source
        self.read = functools.partial(read_pixels, channels=channels, to_float32=to_float32)
        self.fps: float | None = None
        self.count: int | None = None
        self.files: list[str] = []
        self.capture: cv2.VideoCapture | None = None
        path = Path(source)
        if source.isdecimal() and not path.exists():
            self._open_capture(int(source), f'no camera with number {source}')
        elif '://' in source:
            self.files, self.count = [source], 1
            self.read(source)
        elif not path.exists():
            raise UserError(f'no image, folder or video at {path.absolute()}')
        elif path.suffix.lower() in VIDEOS:
            self._open_capture(str(path), f'{path} is not a video that OpenCV reads')
            self.count = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)) if self.capture is not None else 0
        else:
            files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
            self.files = [str(file) for file in files]
            if not self.files:
                raise UserError(f'no image in {path.absolute()} (looked for {" ".join(IMAGES)})')
            self.count = len(self.files)
            for file in self.files:
                self.read(file)

    def _open_capture(self, source: int | str, message: str) -> None:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its own messages do not help a user
        try:
            self.capture = cv2.VideoCapture(source)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self.capture.isOpened():
            raise UserError(f'{message}. Set an image, a folder, a video ({" ".join(VIDEOS)}) or a number from 0')
        self.fps = self.capture.get(cv2.CAP_PROP_FPS) or 25.0

    def __iter__(self) -> Iterator[Frame]:
        """Read the images.

        Raises:
            EndsEarlyError: A video has fewer frames than its header states; raised after the last frame.
        """
        if self.capture is None:
            for file in self.files:
                yield Frame(Path(file.partition('?')[0]).name, self.read(file))
            return
        number = 0
        while True:
            whole, image = self.capture.read()
            if not whole:
                break
            yield Frame(f'{number:06d}', image)
            number += 1
        self.capture.release()
        if self.count is not None and number < self.count - 1:  # some containers state one frame too many
            raise EndsEarlyError(
                f'{self.source} ends early: {number} of {self.count} frames could be read, and their results are '
                'written. Copy the file again, or repair it: ffmpeg -i FILE -c copy REPAIRED'
            )
