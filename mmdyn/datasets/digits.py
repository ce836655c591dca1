"""Digits: a small detection data set that needs no download, generated from the data that scikit-learn ships.

The 1,797 handwritten digits (8x8 pixels; https://archive.ics.uci.edu/dataset/80) are scaled, rotated, recoloured and
placed on crops of two photographs, among strokes and fragments of other digits. Sizes from 12 to 120 pixels, overlap,
clutter and low contrast make the task hard enough to compare models. Every digit has an outline, whole even where
another digit covers it, and five keypoints. Validation has its own digits and its own part of the photographs. The same
seed gives the same files, byte by byte.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmyolo.registry import DATASETS
from numpy.random import Generator
from tqdm import tqdm

from mmdyn.annotations import Annotations
from mmdyn.annotations.image_files import ImageFiles
from mmdyn.errors import UserError
from mmdyn.files import replacing

from .checked_coco import CheckedCocoDataset

IMAGE_SIZE = 320
DIGIT_SIZES = (12, 120)
TURN = 20  # degrees by which a digit may be turned, either way
MOVING_SIZES = (30, 90)  # of a video
MAX_DIGITS = 10
MIN_VISIBLE = 0.5
VAL_FRACTION = 0.2  # of the digits
TRAIN_COLUMNS = 415  # of the 640 of the photographs; the rest is for validation
INK = 0.35  # pixels with at least this opacity belong to the digit
KEYPOINTS = ('top', 'right', 'bottom', 'left', 'centre')  # of the ink
SKELETON = tuple((5, i) for i in range(1, 5))  # from the centre to the others, counted from 1
FINE = 4  # steps of an outline, to a pixel
SPLITS = {'train': 800, 'val': 200}
CROPS = {'train': 8000, 'val': 1000}  # images of one digit
CROP_SIZE = 64
CONTRAST = (45, 200)  # of a digit to what is under it, of 255
CROP_CONTRAST = (100, 220)


class Sprite(NamedTuple):
    """A transformed digit: opacity (h, w) cropped to its ink, and its label."""

    opacity: np.ndarray
    label: int


class PlacedDigit(NamedTuple):
    """A digit in an image."""

    sprite: Sprite
    x: int  # left
    y: int  # top

    @property
    def box(self) -> list[int]:
        """Left, top, width and height in pixels."""
        height, width = self.sprite.opacity.shape
        return [self.x, self.y, width, height]

    @property
    def ink(self) -> np.ndarray:
        """Which pixels of the box are its ink, (h, w)."""
        return self.sprite.opacity > INK

    def outline(self) -> list[float]:
        """The outer border of its largest part of ink, x and y in turn, in pixels."""
        fine = cv2.resize(self.ink.astype(np.uint8), None, fx=FINE, fy=FINE, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        points = (max(contours, key=cv2.contourArea).reshape(-1, 2) + 0.5) / FINE + (self.x, self.y)
        return points.ravel().tolist()

    def keypoints(self, owner: np.ndarray, number: int) -> list[float]:
        """Position and visibility of :data:`KEYPOINTS`, as in COCO: 2 where it is on top, 1 where another digit is.

        Args:
            owner: Number of the digit on top at every pixel of the image.
            number: That of this digit.
        """
        rows, columns = np.nonzero(self.ink)
        extremes = (rows.argmin(), columns.argmax(), rows.argmax(), columns.argmin())
        centre = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        values = []
        for i in (*extremes, centre):
            x, y = int(columns[i]) + self.x, int(rows[i]) + self.y
            values += [x + 0.5, y + 0.5, 2 if owner[y, x] == number else 1]
        return values


class SplitMaterial(NamedTuple):
    """The digits and photographs of one split."""

    digits: np.ndarray  # (n, 8, 8), 0 to 1
    labels: np.ndarray  # (n,)
    photos: list[np.ndarray]  # each (h, w, 3)


def _split_materials(seed: int) -> dict[str, SplitMaterial]:
    from sklearn.datasets import load_digits, load_sample_images
    from sklearn.model_selection import train_test_split

    data = load_digits()
    digits = (data.images / 16).astype(np.float32)
    train, val = train_test_split(
        np.arange(len(digits)), test_size=VAL_FRACTION, stratify=data.target, random_state=seed
    )
    photos = [photo[..., ::-1] for photo in load_sample_images().images]  # to BGR
    return {
        'train': SplitMaterial(digits[train], data.target[train], [p[:, :TRAIN_COLUMNS] for p in photos]),
        'val': SplitMaterial(digits[val], data.target[val], [p[:, TRAIN_COLUMNS:] for p in photos]),
    }


def _background(material: SplitMaterial, rng: Generator) -> np.ndarray:
    photo = material.photos[rng.integers(len(material.photos))]
    side = int(rng.integers(100, min(photo.shape[:2])))
    y, x = (int(rng.integers(0, n - side)) for n in photo.shape[:2])
    crop = photo[y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    image = cv2.resize(crop, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return image * rng.uniform(0.5, 1.2) + rng.uniform(-20, 20)


def _sprite(material: SplitMaterial, rng: Generator, turn: float = TURN) -> Sprite:
    index = rng.integers(len(material.digits))
    size = np.exp(rng.uniform(*np.log(DIGIT_SIZES)))
    side = max(int(size * 1.5), 8)
    scale = size / 8
    matrix = cv2.getRotationMatrix2D((3.5, 3.5), rng.uniform(-turn, turn), scale)
    matrix[0] *= rng.uniform(0.8, 1.25)  # aspect
    matrix[:, 2] = (side - 1) / 2 - matrix[:, :2] @ (3.5, 3.5)  # centred
    opacity = cv2.warpAffine(material.digits[index], matrix, (side, side), flags=cv2.INTER_CUBIC)
    opacity = np.clip((opacity - 0.15) * 1.6, 0, 1)
    rows, columns = (np.flatnonzero((opacity > INK).any(axis)) for axis in (1, 0))
    if not len(rows):
        return _sprite(material, rng, turn)
    return Sprite(opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(material.labels[index]))


def _colour(under: np.ndarray, rng: Generator, contrast: tuple[int, int] = CONTRAST) -> np.ndarray:
    """A random colour with a low or high contrast to the background."""
    mean = under.reshape(-1, 3).mean(0)
    direction = rng.normal(size=3)
    step = direction / np.abs(direction).max() * rng.uniform(*contrast)
    # Of the two directions, the one with more contrast to the mean after clipping to 0..255.
    return max((np.clip(mean + sign * step, 0, 255) for sign in (1, -1)), key=lambda c: np.abs(c - mean).max())


def _paint(
    image: np.ndarray, opacity: np.ndarray, x: int, y: int, rng: Generator, contrast: tuple[int, int] = CONTRAST
) -> None:
    height, width = opacity.shape
    under = image[y : y + height, x : x + width]
    alpha = opacity[..., None] * rng.uniform(0.7, 1.0)
    under[:] = under + (_colour(under, rng, contrast) - under) * alpha


def _clutter(image: np.ndarray, material: SplitMaterial, rng: Generator) -> None:
    for _ in range(rng.integers(2, 9)):
        if rng.random() < 0.5:
            fragment = _sprite(material, rng).opacity
            part = (
                fragment[: max(len(fragment) // 3, 2)]
                if rng.random() < 0.5
                else fragment[:, : max(fragment.shape[1] // 3, 2)]
            )
            x, y = (int(rng.integers(0, IMAGE_SIZE - n)) for n in part.shape[::-1])
            _paint(image, part, x, y, rng)
        else:
            ends = rng.integers(0, IMAGE_SIZE, 4).tolist()
            colour = rng.integers(0, 256, 3).tolist()
            cv2.line(image, ends[:2], ends[2:], colour, int(rng.integers(1, 5)), cv2.LINE_AA)


def _place(sprite: Sprite, owner: np.ndarray, areas: list[int], rng: Generator) -> tuple[int, int] | None:
    """A position where no digit is covered by more than half; None if several random tries fail."""
    height, width = sprite.opacity.shape
    ink = sprite.opacity > INK
    for _ in range(20):
        x, y = int(rng.integers(0, IMAGE_SIZE - width + 1)), int(rng.integers(0, IMAGE_SIZE - height + 1))
        after = owner.copy()
        after[y : y + height, x : x + width][ink] = len(areas)
        visible = np.bincount(after[after >= 0], minlength=len(areas) + 1)
        if all(v >= MIN_VISIBLE * a for v, a in zip(visible, areas, strict=False)):
            owner[:] = after
            areas.append(int(ink.sum()))
            return x, y
    return None


def make_image(
    material: SplitMaterial, rng: Generator, turn: float = TURN
) -> tuple[np.ndarray, list[PlacedDigit], np.ndarray]:
    """Generate one image.

    Args:
        material: Digits and photographs of the split.
        rng: Random generator.
        turn: Degrees by which a digit may be turned, either way.

    Returns:
        BGR uint8 image (320, 320, 3), the digits in it, and the number of the digit on top at every pixel, -1 for none.
    """
    image = _background(material, rng)
    _clutter(image, material, rng)
    owner = np.full((IMAGE_SIZE, IMAGE_SIZE), -1, dtype=np.int64)
    areas: list[int] = []
    placed: list[PlacedDigit] = []
    for _ in range(rng.integers(0, MAX_DIGITS + 1)):
        sprite = _sprite(material, rng, turn)
        place = _place(sprite, owner, areas, rng)
        if place is None:
            continue
        _paint(image, sprite.opacity, *place, rng)
        placed.append(PlacedDigit(sprite, *place))
    image += rng.normal(scale=rng.uniform(0, 12), size=image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), placed, owner


def _write_split(
    folder: Path, split: str, count: int, material: SplitMaterial, rng: Generator, turn: float, progress: tqdm
) -> None:
    (folder / split).mkdir(parents=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id in range(count):
        image, placed, owner = make_image(material, rng, turn)
        name = f'{image_id:06d}.jpg'
        cv2.imwrite(str(folder / split / name), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        images.append(dict(id=image_id, file_name=name, width=IMAGE_SIZE, height=IMAGE_SIZE))
        for number, digit in enumerate(placed):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=digit.sprite.label,
                    bbox=digit.box,
                    area=digit.box[2] * digit.box[3],
                    iscrowd=0,
                    segmentation=[digit.outline()],
                    keypoints=digit.keypoints(owner, number),
                    num_keypoints=len(KEYPOINTS),
                )
            )
        progress.update()
    points = dict(keypoints=KEYPOINTS, skeleton=SKELETON)
    categories = [dict(id=label, name=str(label), **points) for label in range(10)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'annotations' / f'{split}.json').write_text(json.dumps(content))


@contextmanager
def new_data_set(folder: str | Path) -> Iterator[Path | None]:
    """A folder to write to, which takes the place of ``folder`` in the end; None where that is not empty."""
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent))
    try:
        yield work
        work.chmod(0o755)
        os.rename(work, folder)
    except OSError:
        if not folder.exists():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make_digits(folder: str | Path, seed: int = 0, splits: dict[str, int] = SPLITS, turn: float = TURN) -> Path:
    """Generate the data set atomically.

    Args:
        folder: Output folder; a folder that is not empty remains unchanged.
        seed: The same seed gives the same files.
        splits: Number of images in ``'train'`` and ``'val'``.
        turn: Degrees by which a digit may be turned, either way.

    Returns:
        ``folder``, with ``train/``, ``val/`` and ``annotations/{train,val}.json`` in COCO format.
    """

    def write(out: Path, split: str, count: int, material: SplitMaterial, rng: Generator, progress: tqdm) -> None:
        _write_split(out, split, count, material, rng, turn, progress)

    return _generate(folder, [seed], splits, write)


def _generate(folder: str | Path, seed: list[int], splits: dict[str, int], write: Callable[..., None]) -> Path:
    """Let ``write`` make every split of a new data set, with a generator and the digits of its own."""
    with new_data_set(folder) as work:
        if work is not None:
            materials = _split_materials(seed[0])
            with tqdm(total=sum(splits.values()), desc=f'making digits in {folder}', disable=None) as progress:
                for index, (split, count) in enumerate(splits.items()):
                    rng = np.random.default_rng([seed[0], index, *seed[1:]])
                    write(work, split, count, materials[split], rng, progress)
    return Path(folder)


def make_digit_crops(folder: str | Path, seed: int = 0, splits: dict[str, int] = CROPS) -> Path:
    """Generate one digit an image, in a folder of its class, atomically: a data set for classification.

    Args:
        folder: Output folder; a folder that is not empty remains unchanged.
        seed: The same seed gives the same files.
        splits: Number of images in ``'train'`` and ``'val'``.

    Returns:
        ``folder``, with ``train/0/`` to ``val/9/``, images of 64 pixels.
    """
    return _generate(folder, [seed, CROP_SIZE], splits, _write_crops)


def _write_crops(folder: Path, split: str, count: int, material: SplitMaterial, rng: Generator, progress: tqdm) -> None:
    for number in range(count):
        image, label = make_crop(material, rng)
        (folder / split / str(label)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / split / str(label) / f'{number:06d}.png'), image)
        progress.update()


def make_crop(material: SplitMaterial, rng: Generator) -> tuple[np.ndarray, int]:
    """Generate the image of one digit, BGR uint8 (64, 64, 3), and its label."""
    top, left = (int(n) for n in rng.integers(0, IMAGE_SIZE - CROP_SIZE + 1, 2))
    image = _background(material, rng)[top : top + CROP_SIZE, left : left + CROP_SIZE]
    sprite = _sprite(material, rng)
    while not 0.6 * CROP_SIZE <= max(sprite.opacity.shape) <= CROP_SIZE:
        sprite = _sprite(material, rng)
    height, width = sprite.opacity.shape
    x, y = (int(rng.integers(0, CROP_SIZE - side + 1)) for side in (width, height))
    _paint(image, sprite.opacity, x, y, rng, CROP_CONTRAST)
    noise = rng.normal(scale=rng.uniform(0, 12), size=image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), sprite.label


class MovingDigit(NamedTuple):
    """A digit of a video."""

    sprite: Sprite
    colour: np.ndarray  # (3,), BGR
    start: np.ndarray  # (2,), left and top in the first frame
    step: np.ndarray  # (2,), pixels per frame

    def place(self, frame: int) -> tuple[int, int]:
        """Left and top in a frame: straight ahead, and back from the borders."""
        room = IMAGE_SIZE - np.array(self.sprite.opacity.shape[::-1])
        way = (self.start + frame * self.step) % (2 * room)
        x, y = np.where(way < room, way, 2 * room - way).round().astype(int).tolist()
        return x, y


def make_digits_video(path: str | Path, frames: int = 200, seed: int = 0, digits: int = 4) -> list[list[tuple]]:
    """Generate a video of digits that move over a photograph and cross each other.

    Args:
        path: File to write, ``.mp4``.
        frames: Number of frames, 25 of which are a second.
        seed: The same seed gives the same frames.
        digits: Number of digits.

    Returns:
        For every frame, of every digit its number, its box ``[x, y, width, height]`` in pixels, and its label.

    Raises:
        UserError: OpenCV cannot write videos here.

    Example:
        >>> video = make_digits_video(folder / 'digits.mp4', frames=2, digits=3)
        >>> len(video), [number for number, box, label in video[0]]
        (2, [0, 1, 2])
    """
    material, rng = _split_materials(seed)['val'], np.random.default_rng([seed, 2])
    background = np.clip(_background(material, rng), 0, 255)
    low, high = MOVING_SIZES
    moving: list[MovingDigit] = []
    while len(moving) < digits:
        sprite = _sprite(material, rng)
        if low <= min(sprite.opacity.shape) and max(sprite.opacity.shape) <= high:
            angle, start = rng.uniform(0, 2 * np.pi), rng.uniform(0, IMAGE_SIZE, 2)
            step = rng.uniform(1, 3) * np.array([np.cos(angle), np.sin(angle)])
            moving.append(MovingDigit(sprite, _colour(background, rng, (180, 250)), start, step))
    boxes: list[list[tuple]] = []
    with replacing(path) as partial:
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*'mp4v'), 25, (IMAGE_SIZE, IMAGE_SIZE))
        if not writer.isOpened():
            raise UserError(f'OpenCV cannot write {path}: it has no encoder of mp4v here')
        for frame in range(frames):
            image = background.copy()
            boxes.append([])
            for number, digit in enumerate(moving):
                (x, y), opacity = digit.place(frame), digit.sprite.opacity
                height, width = opacity.shape
                under = image[y : y + height, x : x + width]
                under[:] = under + (digit.colour - under) * opacity[..., None]
                boxes[-1].append((number, [x, y, width, height], digit.sprite.label))
            writer.write(image.astype(np.uint8))
        writer.release()
    return boxes


@DATASETS.register_module()
class DigitsDataset(CheckedCocoDataset):
    """The digits, generated in ``data_root`` if they are missing.

    Args:
        seed: Seed of the generated data.
        turn: Degrees by which a digit may be turned, either way.
        **kwargs: As in :class:`CheckedCocoDataset`; ``data_root`` is the folder of the data set.

    Example:
        >>> root = digits_image.parents[1]  # exists: the digits are read, not made
        >>> files = dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'))
        >>> len(DigitsDataset(data_root=str(root), test_mode=True, **files))
        8
    """

    def __init__(self, *args, seed: int = 0, turn: float = TURN, **kwargs) -> None:
        self.seed, self.turn = seed, turn
        super().__init__(*args, **kwargs)

    def read(self) -> tuple[Annotations, ImageFiles | None]:
        """Generate the digits if they are missing, then read their annotations."""
        make_digits(self.data_root, self.seed, turn=self.turn)
        return super().read()
