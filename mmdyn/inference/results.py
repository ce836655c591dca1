"""Results: predict for every image of a source, draw the predictions, and write them as JSON."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from mmdyn.errors import UserError
from mmdyn.files import move_into_place, partial_path, write_image, write_json

from .load import Model, Prediction
from .media import IMAGES, EndsEarlyError, Frame, Media

WINDOW = 'mmdyn'


class Written(NamedTuple):
    """What :func:`write_results` has written."""

    images: int
    objects: int


class PictureFiles:
    """Writes a picture and a JSON file for every image.

    Args:
        media: The images.
        pictures: Folder of the pictures.
        notes: Folder of the JSON files.
    """

    def __init__(self, media: Media, pictures: Path, notes: Path) -> None:
        self.pictures, self.notes = pictures, notes
        self.stems = Counter(Path(file).stem for file in media.files)

    def add(self, name: str, picture: np.ndarray, rows: dict[str, Any]) -> None:
        """Write both files; if two images differ only in their suffix, their JSON files keep it in the name."""
        path = Path(name)
        write_image(self.pictures / (name if path.suffix.lower() in IMAGES else f'{name}.jpg'), picture)
        write_json(self.notes / f'{path.stem if self.stems[path.stem] <= 1 else name}.json', rows)

    def publish(self) -> None:
        """Nothing to do: all files have their final names."""

    discard = publish


class VideoFile:
    """Writes frames as an ``.mp4`` and one JSON file, under temporary names until :meth:`publish`.

    Args:
        name: Name of both, without suffix.
        pictures: Folder of the video.
        notes: Folder of the JSON file.
        fps: Frames per second.
    """

    def __init__(self, name: str, pictures: Path, notes: Path, fps: float) -> None:
        self.path, self.notes, self.fps = pictures / f'{name}.mp4', notes / f'{name}.json', fps
        self.partial = partial_path(self.path)
        self.writer: cv2.VideoWriter | None = None
        self.frames: list[dict[str, Any]] = []

    def add(self, name: str, picture: np.ndarray, rows: dict[str, Any]) -> None:
        """Write a frame; the first frame sets the size.

        Raises:
            UserError: OpenCV cannot write videos here.
        """
        if self.writer is None:
            height, width = picture.shape[:2]
            writer = cv2.VideoWriter(str(self.partial), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, (width, height))
            if not writer.isOpened():
                raise UserError(f'OpenCV cannot write {self.path}: is the folder writable?')
            self.writer = writer
        self.writer.write(picture)
        self.frames.append(rows)

    def publish(self) -> None:
        """Move the written files to their final names."""
        if self.writer is not None:
            self.writer.release()
            move_into_place(self.partial, self.path)
            write_json(self.notes, self.frames)

    def discard(self) -> None:
        """Remove the written files."""
        if self.writer is not None:
            self.writer.release()
            self.partial.unlink(missing_ok=True)


@contextmanager
def _window(show: bool) -> Iterator[None]:
    """Close the window at the end; raise an error immediately if there is no display."""
    if show:
        try:
            cv2.namedWindow(WINDOW)
        except cv2.error as e:
            raise UserError('--show needs a display, but there is none: omit it') from e
    try:
        yield
    finally:
        if show:
            cv2.destroyAllWindows()


def write_results(
    media: Media, model: Model, out_dir: Path, score: float, batch: int = 1, show: bool = False
) -> Written:
    """Predict for all images: pictures or a video in ``vis/``, JSON in ``preds/`` (for a video one file of all frames).

    If a video ends early, and after Ctrl-C, the results so far are kept.

    Args:
        media: The images.
        model: The model.
        out_dir: Folder to write to.
        score: Score threshold.
        batch: Batch size.
        show: Also show the pictures in a window.

    Returns:
        How many images and objects there were.

    Raises:
        UserError: A video ends early, there is no display, or pictures would overwrite their sources.
    """
    pictures, notes = out_dir / 'vis', out_dir / 'preds'
    if pictures.resolve() in {Path(file).resolve().parent for file in media.files or [media.source]}:
        raise UserError(f'the pictures would overwrite their sources in {pictures}: set another --out-dir')
    for folder in (pictures, notes):
        folder.mkdir(parents=True, exist_ok=True)
    name = f'camera{media.source}' if media.count is None else Path(media.source).stem
    files = VideoFile(name, pictures, notes, media.fps) if media.fps else PictureFiles(media, pictures, notes)
    images = objects = 0

    def keep(frame: Frame, prediction: Prediction) -> bool:
        nonlocal images, objects
        images += 1
        objects += len(prediction.pred_instances)
        picture = prediction.draw()
        files.add(frame.name, picture, prediction.rows())
        if show:
            cv2.imshow(WINDOW, picture)
        return not (show and cv2.waitKey(1) & 0xFF == ord('q'))

    with _window(show), _published(files):
        _run(media, model, score, batch, keep)
    return Written(images, objects)


@contextmanager
def _published(files: PictureFiles | VideoFile) -> Iterator[None]:
    """Publish the results, also after Ctrl-C or if a video ends early; discard them after an error."""
    try:
        yield
    except KeyboardInterrupt:
        print('\nstopped')
    except EndsEarlyError:
        files.publish()
        raise
    except BaseException:
        files.discard()
        raise
    files.publish()


def _run(media: Media, model: Model, score: float, batch: int, keep) -> None:
    """Pass every image and its prediction to ``keep``, until it returns False."""
    images = iter(tqdm(media, total=media.count, unit='image', desc='detecting'))
    while part := list(islice(images, batch)):
        for frame, prediction in zip(part, model([f.image for f in part], score), strict=True):
            if not keep(frame, prediction):
                return
