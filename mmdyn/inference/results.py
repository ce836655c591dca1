"""Results: draws predictions, and writes them as pictures, videos, JSON and text."""

import contextlib
import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from mmdyn.annotations.yolo import label_file
from mmdyn.errors import UserError
from mmdyn.files import move_into_place, partial_path, write_image, write_json, write_text

from .media import IMAGES, EndsEarlyError, Media
from .onnx_detector import corners_of, viewable
from .prediction import Prediction

WINDOW = 'mmdyn'
RESERVE = 2**23  # bytes of a disk that stay free, so that a video can be completed
FULL = (errno.ENOSPC, errno.EDQUOT)


class Written(NamedTuple):
    """What :func:`write_results` has written."""

    images: int
    objects: int


class Outputs(NamedTuple):
    """What :func:`write_results` writes beside pictures and JSON.

    Example:
        >>> Outputs(labels=True).crops
        False
    """

    labels: bool = False  # text files as YOLO's labels
    dota: bool = False  # a text file of every class, as DOTA's evaluation takes them
    crops: bool = False  # a picture of every object
    lines: TextIO | None = None  # a line of JSON for every image, as it comes
    tracks: bool = False  # a text file as of the MOT challenge, and the picture of every track
    show: bool = False  # a window, too


class Output:
    """One kind of result; files are complete after :meth:`publish`."""

    def add(self, prediction: Prediction) -> None:
        """Write a prediction; its ``name`` is that of the image, or the number of the frame."""
        raise NotImplementedError

    def publish(self) -> None:
        """Complete the files."""

    def discard(self) -> None:
        """Remove what is incomplete."""


class Names:
    """Names of the files of an image: its stem, which keeps the suffix if two images differ in that only.

    Args:
        images: Names of all images; none for a video.
        video: Name of a video, which precedes the numbers of its frames.
    """

    def __init__(self, images: Sequence[str], video: str = '') -> None:
        self.stems = Counter(Path(name).stem for name in images)
        self.prefix = f'{video}_' if video else ''

    def __call__(self, name: str) -> str:
        """The name for an image, without suffix."""
        stem = Path(name).stem
        return self.prefix + (stem if self.stems[stem] <= 1 else name)


class Pictures(Output):
    """A picture of every image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, prediction: Prediction) -> None:
        """Write the picture; an image whose name is not that of a picture becomes a ``.jpg``."""
        name = prediction.name
        path = self.folder / (name if Path(name).suffix.lower() in IMAGES else f'{name}.jpg')
        write_image(path, prediction.draw())


class VideoFile(Output):
    """An ``.mp4`` of the drawn frames, under a temporary name until :meth:`publish`.

    Args:
        path: The file.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.partial = partial_path(path)
        self.writer: cv2.VideoWriter | None = None
        self.size = (0, 0)  # width and height

    def add(self, prediction: Prediction) -> None:
        """Write a frame; the first frame sets the size.

        Raises:
            UserError: OpenCV cannot write videos here.
        """
        picture = prediction.draw()
        if self.writer is None:
            self.size = picture.shape[1], picture.shape[0]
            writer = cv2.VideoWriter(str(self.partial), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, self.size)
            if not writer.isOpened():
                raise UserError(f'OpenCV cannot write {self.path}: is the folder writable?')
            self.writer = writer
        elif self.size != (picture.shape[1], picture.shape[0]):  # a stream may change; a frame of another size is lost
            picture = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        self.writer.write(picture)

    def publish(self) -> None:
        """Complete the file, and move it to its final name."""
        if self.writer is not None:
            self.writer.release()
            move_into_place(self.partial, self.path)

    def discard(self) -> None:
        """Remove the file."""
        if self.writer is not None:
            self.writer.release()
            self.partial.unlink(missing_ok=True)


class JsonFiles(Output):
    """A JSON file for every image."""

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names

    def add(self, prediction: Prediction) -> None:
        """Write the file."""
        write_json(self.folder / f'{self.names(prediction.name)}.json', prediction.rows())


class JsonLines(Output):
    """A line of JSON for every image, written as it comes: what is there stays readable, whatever happens.

    Args:
        target: File to write, or an open stream.
    """

    def __init__(self, target: Path | TextIO) -> None:
        self.target = target
        self.file: TextIO | None = None

    def add(self, prediction: Prediction) -> None:
        """Write the line; the first one replaces an earlier file."""
        if self.file is None:
            self.file = self.target.open('w') if isinstance(self.target, Path) else self.target
        origin = dict(image=prediction.name) | (dict(path=path) if (path := prediction.img_path) else {})
        self.file.write(json.dumps(origin | prediction.rows()) + '\n')
        self.file.flush()

    def publish(self) -> None:
        """Close the file."""
        if self.file is not None and isinstance(self.target, Path):
            self.file.close()

    discard = publish


class Labels(Output):
    """A text file for every image, as YOLO's labels: class, and centre, width and height as shares of the image.

    Masks are written as polygons instead, an object's largest part each, and oriented boxes as their four corners.
    After a box with keypoints come x, y and visibility of each: 2, or 0 where its score is not above 0.5. Of a
    classifier a line has a score and the name of its class.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names

    def add(self, prediction: Prediction) -> None:
        """Write the file; it is empty if there is no object."""
        height, width = prediction.ori_shape
        boxes, scores, labels, masks, keypoints, seen, turned = prediction.detections()
        file = self.folder / f'{self.names(prediction.name)}.txt'
        if boxes is None:
            lines = [f'{score:.5f} {prediction.names[label]}\n' for score, label in zip(scores, labels, strict=True)]
            write_text(file, ''.join(lines))
            return
        places: Iterable[np.ndarray]
        if turned is not None:
            places = corners_of(turned).reshape(-1, 8)
        elif masks is not None:
            places = map(_outline, masks)
        else:
            places = np.hstack(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]))
        shares = [place / np.tile([width, height], len(place) // 2) for place in places]
        rows = [' '.join([str(label), *(f'{v:.6f}' for v in row)]) for label, row in zip(labels, shares, strict=True)]
        if keypoints is not None:
            points = [
                ' '.join(f'{x:.6f} {y:.6f} {2 * int(sure > 0.5)}' for (x, y), sure in zip(each, score, strict=True))
                for each, score in zip(keypoints / [width, height], seen, strict=True)
            ]
            rows = [f'{row} {each}' for row, each in zip(rows, points, strict=True)]
        write_text(file, ''.join(f'{row}\n' for row in rows))


def _outline(mask: np.ndarray) -> np.ndarray:
    """The outer border of the largest part of a mask (H, W), x and y in turn; a corner of the image for none."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea, default=np.zeros((1, 2), np.int32)).reshape(-1, 2)
    points = np.pad(largest, ((0, max(0, 3 - len(largest))), (0, 0)), 'edge')  # a polygon has three corners
    return points.ravel() + 0.5


class DotaFiles(Output):
    """A text file of every class, as DOTA's evaluation takes them: image, score, and the four corners in pixels.

    Args:
        folder: Folder of the files, ``Task1_CLASS.txt``; there is one for each class that was found.
        names: Names of the images.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names
        self.lines: dict[str, list[str]] = {}

    def add(self, prediction: Prediction) -> None:
        """Keep the lines of an image.

        Raises:
            UserError: The model predicts no oriented boxes.
        """
        _, scores, labels, *_, turned = prediction.detections()
        if turned is None:
            raise UserError('--save-dota is for models of oriented boxes: omit it')
        name = self.names(prediction.name)
        for corners, score, label in zip(corners_of(turned).reshape(-1, 8), scores, labels, strict=True):
            line = ' '.join([name, f'{score:.5f}', *(f'{v:.2f}' for v in corners)])
            self.lines.setdefault(prediction.names[label], []).append(f'{line}\n')

    def publish(self) -> None:
        """Write the files."""
        for name, lines in self.lines.items():
            write_text(self.folder / f'Task1_{name.replace(os.sep, "_")}.txt', ''.join(lines))


class Crops(Output):
    """A picture of every object, in a folder of its class."""

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names

    def add(self, prediction: Prediction) -> None:
        """Write the pictures; an object outside of the image has none.

        Raises:
            UserError: The model predicts no boxes.
        """
        if 'bboxes' not in prediction.pred_instances:
            raise UserError('--save-crop is for models that find objects: omit it')
        image, stem = viewable(prediction.image), self.names(prediction.name)
        boxes, _, labels, *_ = prediction.detections()
        for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            left, top = np.floor(box[:2]).clip(0).astype(int)
            right, bottom = np.ceil(box[2:]).clip(0).astype(int)
            crop = image[top:bottom, left:right]
            if crop.size:
                write_image(self.folder / prediction.names[label].replace(os.sep, '_') / f'{stem}_{i}.jpg', crop)


class MotFile(Output):
    """Tracks as text of the MOT challenge: frame, number, left, top, width, height, score, class, visibility.

    Frames and classes count from 1, as the challenge's do; the visibility is not known, and written as -1.

    Args:
        path: The file.
        numbered: Whether the name of a prediction is the number of its frame; otherwise images are counted.
    """

    def __init__(self, path: Path, numbered: bool) -> None:
        self.path, self.numbered = path, numbered
        self.file: TextIO | None = None
        self.images = 0

    def add(self, prediction: Prediction) -> None:
        """Write the lines of a frame."""
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open('w')
        self.images += 1
        frame = int(prediction.name) + 1 if self.numbered else self.images
        ids = prediction.pred_instances.instances_id.tolist()
        for number, box, score, label in zip(ids, *prediction.detections()[:3], strict=True):
            left, top, right, bottom = box
            place = ','.join(f'{v:.2f}' for v in (left, top, right - left, bottom - top))
            self.file.write(f'{frame},{number},{place},{score:.4f},{label + 1},-1\n')
        self.file.flush()

    def publish(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()

    discard = publish


class Window(Output):
    """A window; the run ends when q is pressed in it.

    Raises:
        UserError: There is no display.
    """

    def __init__(self) -> None:
        message = '--show needs a display, but there is none: omit it'
        if sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            raise UserError(message)  # Qt would end the process
        try:
            cv2.namedWindow(WINDOW)
        except cv2.error as e:
            raise UserError(message) from e

    def add(self, prediction: Prediction) -> None:
        """Show a picture."""
        cv2.imshow(WINDOW, prediction.draw())
        if cv2.waitKey(1) & 0xFF == ord('q'):
            raise KeyboardInterrupt

    def publish(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()

    discard = publish


def write_results(
    media: Media, predictions: Iterable[Prediction], out_dir: Path, outputs: Outputs | None = None
) -> Written:
    """Write predictions: pictures or a video in ``vis/``, JSON in ``preds/``, and what else is asked for.

    Images have a JSON file each, a video has one with a line for every frame. If a source ends early, after Ctrl-C, and
    before the disk is full, the results so far are kept.

    Args:
        media: The images.
        predictions: Their predictions, as :meth:`mmdyn.inference.Model.stream` gives them.
        out_dir: Folder to write to.
        outputs: What else is written.

    Returns:
        How many images and objects there were.

    Raises:
        UserError: A source ends early, the disk is full, or there is no display.
    """
    outputs = outputs or Outputs()
    refuse_own_folder(media, out_dir, outputs.labels)
    images = objects = 0
    bar = tqdm(predictions, total=media.count, unit='image', desc='tracking' if outputs.tracks else 'detecting')
    try:
        with contextlib.ExitStack() as stack:
            targets = _targets(media, out_dir, outputs, stack)
            for prediction in bar:
                _check_room(out_dir, prediction.image.nbytes, images)
                for target in targets:
                    target.add(prediction)
                images += 1
                objects += len(prediction.pred_instances)
    except KeyboardInterrupt:
        print('\nstopped', file=sys.stderr)
    except BrokenPipeError:  # whoever reads the lines has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it when it exits
    except OSError as e:
        if e.errno not in FULL:
            raise
        raise _full(out_dir, images) from e
    return Written(images, objects)


def refuse_own_folder(media: Media, out_dir: Path, labels: bool) -> None:
    """Refuse to write pictures into the folder that they come from, or labels into that of their data set.

    Raises:
        UserError: They would overwrite their sources.
    """
    pictures = out_dir / 'vis'
    beside = {label_file(Path(file).absolute()).parent.resolve() for file in getattr(media, 'files', ())}
    if labels and (out_dir / 'labels').resolve() in beside:
        raise UserError(f'{out_dir / "labels"} has the labels of these images: set another --out-dir')
    if pictures.resolve() in {Path(file).resolve().parent for file in getattr(media, 'files', [media.source])}:
        raise UserError(f'the pictures would overwrite their sources in {pictures}: set another --out-dir')


def _targets(media: Media, out_dir: Path, outputs: Outputs, stack: contextlib.ExitStack) -> list[Output]:
    """The outputs, which are published or discarded when the stack is closed."""
    pictures, notes = out_dir / 'vis', out_dir / 'preds'
    for folder in (pictures, notes):
        folder.mkdir(parents=True, exist_ok=True)
    video = media.fps is not None
    names = Names(getattr(media, 'names', ()), media.name if video else '')
    targets: list[Output] = []

    def add(target: Output) -> None:
        targets.append(target)
        stack.enter_context(_published(target))

    if outputs.show:
        add(Window())
    if outputs.lines is not None:  # first: whoever reads them may stop, and the others have as many images
        add(JsonLines(outputs.lines))
    if outputs.dota:  # before all files: it may refuse the model
        add(DotaFiles(out_dir / 'dota', names))
    if video:
        add(VideoFile(pictures / f'{media.name}.mp4', media.fps or 25.0))
        add(JsonLines(notes / f'{media.name}.jsonl'))
    else:
        add(Pictures(pictures))
        add(JsonFiles(notes, names))
    if outputs.tracks:
        add(MotFile(out_dir / 'tracks' / f'{media.name}.txt', video))
    if outputs.labels:
        add(Labels(out_dir / 'labels', names))
    if outputs.crops:
        add(Crops(out_dir / 'crops', names))
    return targets


@contextmanager
def _published(target: Output) -> Iterator[None]:
    """Publish a result, also after Ctrl-C, if a source ends early or a disk is full; discard it after another error."""
    try:
        yield
    except (KeyboardInterrupt, EndsEarlyError, OSError):
        target.publish()
        raise
    except BaseException:
        target.discard()
        raise
    target.publish()


def _check_room(folder: Path, image: int, images: int) -> None:
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < RESERVE + 2 * image:
        raise _full(folder, images)


def _full(folder: Path, images: int) -> EndsEarlyError:
    return EndsEarlyError(
        f'{folder.absolute()} is on a full disk: stopped after {images} images, whose results are written. '
        'Free some space, or set another --out-dir'
    )
