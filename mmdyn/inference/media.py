"""Media: iterates over the images of files, folders, patterns, lists, videos, streams and cameras."""

import functools
import glob
import http.client
import itertools
import re
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
STREAMS = ('rtsp', 'rtsps', 'rtmp', 'rtmps', 'rtp', 'srt', 'udp', 'tcp')
STANDARD_INPUT = '-'
PAUSES = (1, 2, 4)  # seconds before each try to open a stream again
TIMEOUT = 10  # seconds for a server to answer
NAMED = 5  # unreadable images that a message names
RATES = (1, 240)  # frames per second that are believed; streams state others
COMPLETE = 0.9  # share of the frames that a header states, which is often an estimate


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
        self.name, self.names = 'images', unique_names(files)
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
        path = Path(_file_name(file))
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
        self.shown = without_password(source)
        self.camera = source.isdecimal() and not Path(source).exists()
        self.name = f'camera{source}' if self.camera else Path(_file_name(source)).stem
        self.capture = self._opened()
        if self.capture is None:
            raise UserError(
                f'no camera with number {source}' if self.camera else f'{self.shown} is not a video that OpenCV reads'
            )
        whole, self.first = self.capture.read()
        if not whole:
            raise UserError(f'{self.shown} has no frames')
        frames = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frames = frames if frames > 0 and not self.camera else None
        is_file = '://' not in source or Path(_file_name(source)).suffix.lower() in VIDEOS
        self.stream = self.frames is None and not is_file and not self.camera  # may be opened again
        self.count = None if self.frames is None else -(-self.frames // stride)
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = max((rate if RATES[0] <= rate <= RATES[1] else 25.0) / stride, RATES[0])

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
        try:
            while True:
                if number % self.stride == 0:
                    yield Frame(f'{number:06d}', image)
                number += 1
                whole, image = self._next(decode=number % self.stride == 0)
                if not whole and self.stream:
                    whole, image = self._again()
                    number += -number % self.stride if whole else 0  # a decoded frame, although it was to be skipped
                if not whole:
                    break
        finally:
            if self.capture is not None:
                self.capture.release()
        written = f'{number} frames were read, and their results are written'
        if self.stream:
            raise EndsEarlyError(f'{self.shown} closed, and did not open again in {len(PAUSES)} tries: {written}')
        if self.camera:
            raise EndsEarlyError(f'the camera {self.source} gives no more images: {written}')
        if self.frames is not None and number < COMPLETE * self.frames - 1:
            raise EndsEarlyError(
                f'{self.shown} ends early: {written}, of about {self.frames}. Copy the file again, or repair it: '
                'ffmpeg -i FILE -c copy REPAIRED'
            )

    def _next(self, decode: bool) -> tuple[bool, np.ndarray]:
        assert self.capture is not None
        return self.capture.read() if decode else (self.capture.grab(), self.first)

    def _again(self) -> tuple[bool, np.ndarray]:
        """Open a stream again, and read a frame."""
        for pause in PAUSES:
            if self.capture is not None:  # a camera may serve one client only
                self.capture.release()
            print(f'{self.shown} closed; it is opened again in {pause} s', file=sys.stderr)
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
            deeper = any(p.is_dir() for p in path.iterdir())
            hint = f". Its folders are not searched: give '{path}/**/*.jpg' for them" if deeper else ''
            raise UserError(f'no image in {path.absolute()} (looked for {" ".join(IMAGES)}){hint}')
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


def without_password(url: str) -> str:
    """A URL as it may be shown.

    Example:
        >>> without_password('rtsp://me:secret@camera/1')
        'rtsp://me:***@camera/1'
    """
    return re.sub(r'(://[^/@:]*):[^/@]*@', r'\1:***@', url)


def _file_name(source: str) -> str:
    """The name of a file or of the last part of a URL, which may have none."""
    if '://' not in source:
        return Path(source).name or 'images'
    parts = urlparse(source)
    return Path(parts.path).name or parts.hostname or 'stream'


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
    if parts.scheme not in ('http', 'https', 'file'):
        raise UserError(f'{without_password(url)}: the scheme must be http, https, {", ".join(STREAMS)}')
    if suffix in IMAGES or parts.scheme == 'file':
        return False
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
    except http.client.HTTPException:  # a name and a password in the address, or a server of streams: FFmpeg's matter
        return True
    except (OSError, ValueError) as e:
        raise UserError(f'{without_password(url)} cannot be opened: {getattr(e, "reason", e)}') from e
    return kind.startswith('video/') or kind in ('multipart/x-mixed-replace', 'application/vnd.apple.mpegurl')
