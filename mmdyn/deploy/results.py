"""Results: detect in every image of a source, draw what was found, and write it as JSON."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from tqdm import tqdm

from mmdyn.analysis.pictures import write_image
from mmdyn.engine.checkpoint import AtomicLocalBackend
from mmdyn.errors import UserError

from .media import IMAGES, EndsEarlyError, Frame, Media
from .onnx_detector import Detections, draw

WINDOW = 'mmdyn'


class Detector(Protocol):
    """A checkpoint or an exported file."""

    names: list[str]

    def __call__(self, images: list[np.ndarray], score: float) -> list[Detections]:
        """Detect in BGR images."""
        ...


class VideoFile:
    """Frames as an ``.mp4``, written beside its place until :meth:`publish`.

    Args:
        path: The file.
        fps: Frames of a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.partial = path.with_stem(f'{path.stem}.partial')
        self.writer: cv2.VideoWriter | None = None

    def add(self, image: np.ndarray) -> None:
        """Write a frame; the first one says the size.

        Raises:
            UserError: OpenCV cannot write videos here.
        """
        if self.writer is None:
            height, width = image.shape[:2]
            writer = cv2.VideoWriter(str(self.partial), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, (width, height))
            if not writer.isOpened():
                raise UserError(f'OpenCV cannot write {self.path}: is the folder writable?')
            self.writer = writer
        self.writer.write(image)

    def publish(self) -> None:
        """Move what was written to its place."""
        if self.writer is not None:
            self.writer.release()
            os.replace(self.partial, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        if self.writer is not None:
            self.writer.release()
            self.partial.unlink(missing_ok=True)


def _rows(found: Detections, names: list[str]) -> dict[str, Any]:
    """Detections of an image, by the names that mmdet's ``DetInferencer`` uses, and the class names."""
    return dict(
        labels=found.labels.tolist(),
        scores=[round(float(s), 5) for s in found.scores],
        bboxes=[[round(float(v), 2) for v in box] for box in found.boxes],
        names=[names[label] for label in found.labels],
    )


def _write_json(content: Any, path: Path) -> None:
    AtomicLocalBackend().put(json.dumps(content).encode(), str(path))


@contextmanager
def _window(show: bool) -> Iterator[None]:
    """Close the window in the end; without a screen, say so at once."""
    if show:
        try:
            cv2.namedWindow(WINDOW)
        except cv2.error as e:
            raise UserError('--show needs a screen, and there is none: leave it out') from e
    try:
        yield
    finally:
        if show:
            cv2.destroyAllWindows()


def write_results(
    media: Media, detector: Detector, out_dir: Path, score: float, batch: int = 1, show: bool = False
) -> int:
    """Detect in all images: pictures or one video in ``vis/``, JSON in ``preds/`` (for a video one file of all frames).

    A video that ends early, and Ctrl-C, leave what was found until then.

    Args:
        media: The images.
        detector: What detects.
        out_dir: Folder to write to.
        score: Least score.
        batch: Images at a time.
        show: Show them in a window, too.

    Returns:
        How many images there were.

    Raises:
        UserError: A video ends early, there is no screen to show on, or pictures would overwrite their sources.
    """
    pictures, notes = out_dir / 'vis', out_dir / 'preds'
    if pictures.resolve() in {Path(file).resolve().parent for file in media.files or [media.source]}:
        raise UserError(f'the pictures would overwrite their sources in {pictures}: give another --out-dir')
    for folder in (pictures, notes):
        folder.mkdir(parents=True, exist_ok=True)
    name = f'camera{media.source}' if media.count is None else Path(media.source).stem
    video = VideoFile(pictures / f'{name}.mp4', media.fps) if media.fps else None
    stems = Counter(Path(file).stem for file in media.files)
    frames: list[dict] = []

    def keep(frame: Frame, found: Detections) -> bool:
        picture, rows = draw(frame.image, found, detector.names), _rows(found, detector.names)
        frames.append(rows)
        if video is None:
            path = Path(frame.name)
            suffix = '' if path.suffix.lower() in IMAGES else '.jpg'
            write_image(pictures / f'{path.name}{suffix}', picture)
            _write_json(rows, notes / f'{path.stem if stems[path.stem] <= 1 else path.name}.json')
        else:
            video.add(picture)
        if show:
            cv2.imshow(WINDOW, picture)
        return not (show and cv2.waitKey(1) & 0xFF == ord('q'))

    def publish() -> None:
        if video is not None:
            video.publish()
            _write_json(frames, notes / f'{name}.json')

    with _window(show):
        try:
            _run(media, detector, score, batch, keep)
        except KeyboardInterrupt:
            print('\nstopped')
        except EndsEarlyError:
            publish()
            raise
        except BaseException:
            if video is not None:
                video.discard()
            raise
        publish()
    return len(frames)


def _run(media: Media, detector: Detector, score: float, batch: int, keep) -> None:
    """Hand every image and what was found in it to ``keep``, until that says no."""
    images = iter(tqdm(media, total=media.count, unit='image', desc='detecting'))
    while part := list(islice(images, batch)):
        for frame, found in zip(part, detector([f.image for f in part], score), strict=True):
            if not keep(frame, found):
                return
