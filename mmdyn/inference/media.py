"""Media: iterates over the images of files, folders, patterns, lists, videos, streams and cameras."""

import functools
import glob
import itertools
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import cv2
import numpy as np

from mmdyn.datasets.pixels import read_pixels
from mmdyn.errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
STREAMS = ('rtsp', 'rtsps', 'rtmp', 'udp', 'tcp')
STANDARD_INPUT = '-'
PAUSES = (1, 2, 4)  # seconds before each try to open a stream again
TIMEOUT = 10  # seconds for a server to answer
NAMED = 5  # unreadable images that a message names


class Frame(NamedTuple):
    """One image."""

    name: str  # no other image of the source has it
    image: np.ndarray  # (H, W, channels), as read_pixels gives it
    path: str | None = None  # path or URL of an image


class EndsEarlyError(UserError):
    """Not all images could be read; the results of the others stay."""


class Media:
    """Iterable over images, for one pass; :func:`open_media` makes one.

    Attributes:
        source: As the user gave it.
        name: For files of results.
        count: Number of images; None if unknown.
        fps: Images per second; None where they are no video.

    Example:
        >>> media = open_media(str(digits_image.parent / '*.jpg'))
        >>> media.count, media.fps, next(iter(media)).name
        (8, None, '000000.jpg')
    """

    source: str
    name: str
    count: int | None
    fps: float | None

    def __iter__(self) -> Iterator[Frame]:
        """Read the images.

        Raises:
            EndsEarlyError: Not all could be read; raised after the last one.
        """
        raise NotImplementedError


class ImageFiles(Media):
    """Images of files and URLs.

    Args:
        source: What the user gave.
        files: Paths or URLs.
        channels: Channels, as in :func:`mmdyn.datasets.pixels.read_pixels`.
        to_float32: Keep 16 bits.

    Raises:
        UserError: The only image cannot be read.
    """

    fps = None

    def __init__(self, source: str, files: Sequence[str], channels: int, to_float32: bool) -> None:
        self.source, self.files, self.count = source, list(files), len(files)
        self.name, self.names = Path(source).stem, unique_names(files)
        self.read = functools.partial(read_pixels, channels=channels, to_float32=to_float32)
        if len(files) == 1:
            self.read(files[0])

    def __iter__(self) -> Iterator[Frame]:
        """Read the images; those that cannot be read are left out, and raised at the end."""
        faults = []
        for name, file in zip(self.names, self.files, strict=True):
            try:
                image = self.read(file)
            except UserError as e:
                faults.append(str(e))
                continue
            yield Frame(name, image, file)
        if faults:
            more = f'; and {len(faults) - NAMED} more' if len(faults) > NAMED else ''
            raise EndsEarlyError(
                f'{len(faults)} of {self.count} images could not be read, the results of the others are written: '
                f'{"; ".join(faults[:NAMED])}{more}'
            )


def unique_names(files: Sequence[str]) -> list[str]:
    """Names of files, numbered where files of several folders have the same.

    Example:
        >>> unique_names(['a/1.jpg', 'b/1.jpg', 'https://c/2.jpg?size=3'])
        ['1.jpg', '1-2.jpg', '2.jpg']
    """
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        path = Path(urlparse(file).path if '://' in file else file)
        versions = (f'{path.stem}-{i}{path.suffix}' for i in itertools.count(2))
        name = next(n for n in itertools.chain([path.name], versions) if n not in taken)
        taken.add(name)
        names.append(name)
    return names


class Video(Media):
    """Frames of a video file, a stream or a camera; a stream that closes is opened again a few times.

    Args:
        source: Path, URL, or number of a camera.
        stride: Every so many frames one is given.

    Raises:
        UserError: OpenCV cannot open it, or it has no frames.
    """

    def __init__(self, source: str, stride: int = 1) -> None:
        self.source, self.stride = source, stride
        self.camera = source.isdecimal() and not Path(source).exists()
        self.name = f'camera{source}' if self.camera else Path(urlparse(source).path).stem or 'stream'
        self.capture = self._opened()
        if self.capture is None:
            raise UserError(
                f'no camera with number {source}' if self.camera else f'{source} is not a video that OpenCV reads'
            )
        whole, self.first = self.capture.read()
        if not whole:
            raise UserError(f'{source} has no frames')
        frames = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frames = frames if frames > 0 and not self.camera else None  # None: a stream
        self.count = None if self.frames is None else -(-self.frames // stride)
        self.fps = (self.capture.get(cv2.CAP_PROP_FPS) or 25.0) / stride

    def _opened(self) -> cv2.VideoCapture | None:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000 * TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * TIMEOUT]
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its own messages do not help a user
        try:
            if self.camera:
                capture = cv2.VideoCapture(int(self.source))
            elif '://' in self.source:
                capture = cv2.VideoCapture(self.source, cv2.CAP_FFMPEG, limits)
            else:
                capture = cv2.VideoCapture(self.source)
        finally:
            cv2.utils.logging.setLogLevel(level)
        return capture if capture.isOpened() else None

    def __iter__(self) -> Iterator[Frame]:
        """Read the frames; those between are skipped without being decoded."""
        number, image = 0, self.first
        while True:
            if number % self.stride == 0:
                yield Frame(f'{number:06d}', image)
            number += 1
            whole, image = self._next(decode=number % self.stride == 0)
            if not whole and self.frames is None and not self.camera:
                whole, image = self._again()
                number += -number % self.stride if whole else 0  # a decoded frame, although it was to be skipped
            if not whole:
                break
        if self.capture is not None:
            self.capture.release()
        written = f'{number} frames were read, and their results are written'
        if self.frames is None and not self.camera:
            raise EndsEarlyError(f'{self.source} closed, and did not open again in {len(PAUSES)} tries: {written}')
        if self.frames is not None and number < self.frames - 1:  # some containers state one frame too many
            raise EndsEarlyError(
                f'{self.source} ends early: {written}, of {self.frames}. Copy the file again, or repair it: '
                'ffmpeg -i FILE -c copy REPAIRED'
            )

    def _next(self, decode: bool) -> tuple[bool, np.ndarray]:
        assert self.capture is not None
        return self.capture.read() if decode else (self.capture.grab(), self.first)

    def _again(self) -> tuple[bool, np.ndarray]:
        """Open a stream again, and read a frame."""
        for pause in PAUSES:
            print(f'{self.source} closed; it is opened again in {pause} s', file=sys.stderr)
            time.sleep(pause)
            self.capture = self._opened()
            if self.capture is not None:
                whole, image = self.capture.read()
                if whole:
                    return True, image
        return False, self.first


def open_media(source: str, channels: int = 3, to_float32: bool = False, stride: int = 1) -> Media:
    """Find out what a source is.

    Args:
        source: Image, folder of images, pattern (``'images/*.jpg'``), text file of paths, ``'-'`` for paths in standard
            input, video, URL of an image, of a video or of a stream, or number of a camera.
        channels: Channels of images, as in :func:`mmdyn.datasets.pixels.read_pixels`; frames of videos have three.
        to_float32: Keep 16 bits of images.
        stride: Every so many frames of a video one is given.

    Raises:
        UserError: There is nothing, or it is neither images nor a video.

    Example:
        >>> media = open_media(str(digits_image))
        >>> media.count, [frame.image.shape for frame in media]
        (1, [(320, 320, 3)])
    """
    path = Path(source)
    if source == STANDARD_INPUT:
        files = _listed(sys.stdin, 'standard input')
    elif source.isdecimal() and not path.exists():
        return Video(source, stride)
    elif '://' in source:
        if _is_video(source):
            return Video(source, stride)
        files = [source]
    elif path.suffix.lower() in VIDEOS and path.exists():
        return Video(source, stride)
    elif path.suffix.lower() == '.txt' and path.is_file():
        files = _listed(path.read_text(errors='surrogateescape').splitlines(), source)
    elif path.is_file():
        files = [source]
    elif path.is_dir():
        files = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in IMAGES)
        if not files:
            raise UserError(f'no image in {path.absolute()} (looked for {" ".join(IMAGES)})')
    elif glob.has_magic(source):
        files = sorted(p for p in glob.glob(source, recursive=True) if Path(p).suffix.lower() in IMAGES)
        if not files:
            raise UserError(f'no image matches {source} in {Path.cwd()} (looked for {" ".join(IMAGES)})')
    else:
        raise UserError(
            f'no image, folder or video at {path.absolute()}. Set one of these, a pattern, a list (.txt), a URL, - for '
            f'a list in standard input, or the number of a camera from 0'
        )
    return ImageFiles(source, files, channels, to_float32)


def _listed(lines, source: str) -> list[str]:
    files = [line.strip() for line in itertools.chain(lines) if line.strip()]
    if not files:
        raise UserError(f'{source} lists no image: write one path on each line')
    return files


def _is_video(url: str) -> bool:
    """Whether a URL is a video or a stream, by its scheme or its name, otherwise as its server says.

    Raises:
        UserError: The server does not answer, or not with the file.
    """
    parts = urlparse(url)
    suffix = Path(parts.path).suffix.lower()
    if parts.scheme in STREAMS or suffix in VIDEOS:
        return True
    if suffix in IMAGES or parts.scheme not in ('http', 'https'):
        return False
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
    except (OSError, ValueError) as e:
        raise UserError(f'{url} cannot be opened: {getattr(e, "reason", e)}') from e
    return kind.startswith('video/') or kind in ('multipart/x-mixed-replace', 'application/vnd.apple.mpegurl')
