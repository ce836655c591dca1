"""YOLO text labels, read in place: for every image a text file with a line for every object.

A line has the index of the class, then numbers from 0 to 1 in units of width and height: centre x, centre y, width and
height of a box; or three or more corners of an outline; or a box and its keypoints.
Format: https://docs.ultralytics.com/datasets/detect/.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mmdyn.errors import UserError

from .cache import cached
from .faults import Fault, refuse_faults
from .image_files import MANY, ImageFiles, file_states, look_at_images
from .table import Annotations

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
ROUNDING = 1e-3  # by which coordinates may leave the image
NO_CORNERS = np.empty((0, 2))


class _Labels(NamedTuple):
    """The labels of one image: boxes as centre and size; all coordinates from 0 to 1."""

    classes: list[int]
    boxes: list[list[float]]
    outlines: list[np.ndarray]
    keypoints: list[np.ndarray]
    repeated: int
    faults: list[Fault]


def images_of(places: Sequence[Path], what: str) -> list[Path]:
    """The images in folders, below folders, and in text files of paths, each once.

    Args:
        places: Folders and text files; a path in a text file is absolute, or relative to the text file.
        what: What they are, for messages.

    Raises:
        UserError: A place does not exist, or there is no image in any.
    """
    images: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            images |= dict.fromkeys(sorted(p for p in place.rglob('*') if p.suffix.lower() in SUFFIXES))
        elif place.is_file():
            lines = [line.strip() for line in place.read_text(encoding='utf-8').splitlines() if line.strip()]
            images |= dict.fromkeys(place.parent / line for line in lines)
        else:
            raise UserError(f'{what}: there is neither a folder nor a file at {place.absolute()}')
    if not images:
        raise UserError(
            f'{what} is empty: no image in {", ".join(str(p.absolute()) for p in places)} '
            f'(looked for {" ".join(SUFFIXES)})'
        )
    return list(images)


def label_file(image: Path) -> Path:
    """Where the labels of an image are: ``labels`` in place of the last ``images`` of its path, or beside it."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == 'images':
            parts[i] = 'labels'
            break
    return Path(*parts).with_suffix('.txt')


def read_yolo(
    images: Sequence[Path], classes: Sequence[str], what: str, keypoints: tuple[int, int] = (0, 3)
) -> tuple[Annotations, ImageFiles]:
    """Read the labels of images, or take them from the cache if no file has changed.

    An image without labels has no objects. A line that stands twice counts once.

    Args:
        images: The images.
        classes: Names of the classes.
        what: What they are, for messages.
        keypoints: How many keypoints an object has, and how many numbers each (2 or 3).

    Returns:
        The annotations, and what the images' headers say. ``notes`` counts images
        without objects (``background``), labels without image (``orphans``), repeated lines (``repeated``).

    Raises:
        UserError: Lines are not labels; the first five are named.
    """
    files = look_at_images(images, what)
    labels = [label_file(image) for image in images]
    by_label = dict(zip(labels, images, strict=True))
    if len(by_label) < len(images):
        first = next(i for i, label in zip(images, labels, strict=True) if by_label[label] != i)
        raise UserError(
            f'{what}: {first} and {by_label[label_file(first)]} have one name, so both would have the labels '
            f'{label_file(first)}: rename one'
        )
    state = (tuple(classes), keypoints, file_states(images), file_states(labels))
    arrays, origin = cached(
        f'labels of {what} {images[0].parent} {len(images)}',
        state,
        lambda: _read(images, labels, files, classes, what, keypoints).arrays(),
    )
    return Annotations.from_arrays(arrays, origin), files


def _read(
    images: Sequence[Path],
    labels: Sequence[Path],
    files: ImageFiles,
    classes: Sequence[str],
    what: str,
    keypoints: tuple[int, int],
) -> Annotations:
    with ThreadPoolExecutor() as pool:
        rows = tqdm(
            pool.map(lambda file: _parse(file, len(classes), keypoints), labels),
            total=len(labels),
            desc=f'reading labels of {what}',
            disable=len(labels) < MANY,
        )
        parsed = list(rows)
    faults = [fault for each in parsed for fault in each.faults]
    refuse_faults(f'{what}: {len(faults)} lines are not labels', faults)
    sizes = files.shown_sizes()
    counts = [len(each.classes) for each in parsed]
    of_object = np.repeat(np.arange(len(images)), counts)
    scale = sizes[of_object].astype(np.float64)  # (N, 2)
    boxes = np.array([box for each in parsed for box in each.boxes], np.float64).reshape(-1, 4)
    extent = boxes[:, 2:] * scale
    outlines = [outline for each in parsed for outline in each.outlines]
    points = np.array([k for each in parsed for k in each.keypoints], np.float64).reshape(len(boxes), keypoints[0], 3)
    points[..., :2] *= scale[:, None]
    return Annotations.of(
        files=map(str, images),
        sizes=sizes,
        images=of_object,
        boxes=np.concatenate([boxes[:, :2] * scale - extent / 2, extent], axis=1),
        labels=[label for each in parsed for label in each.classes],
        classes=classes,
        outlines=[outline * size for outline, size in zip(outlines, scale, strict=True)]
        if any(map(len, outlines))
        else None,
        keypoints=points,
        notes=dict(background=counts.count(0), orphans=orphans(labels), repeated=sum(each.repeated for each in parsed)),
    )


def orphans(labels: Sequence[Path]) -> int:
    """Label files without an image, in the folders of the labels."""
    known = set(labels)
    folders = {label.parent for label in labels}
    return sum(
        file not in known and file.name != 'classes.txt'
        for folder in folders
        if folder.is_dir()
        for file in folder.glob('*.txt')
    )


def _parse(file: Path, classes: int, keypoints: tuple[int, int]) -> _Labels:
    """Read a label file; one that does not exist has no objects."""
    result = _Labels([], [], [], [], 0, [])
    try:
        lines = file.read_text(encoding='utf-8-sig').splitlines()
    except FileNotFoundError:
        return result
    except (OSError, UnicodeDecodeError) as e:
        result.faults.append(Fault(file, 1, f'it cannot be read: {e}'))
        return result
    repeated, seen = 0, set()
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        if line in seen:
            repeated += 1
            continue
        seen.add(line)
        why = _add(result, fields, classes, keypoints)
        if why:
            result.faults.append(Fault(file, number, why))
    return result._replace(repeated=repeated)


def _add(result: _Labels, fields: list[str], classes: int, keypoints: tuple[int, int]) -> str | None:
    """Add the object of a line; what is wrong with it otherwise."""
    try:
        label, *values = map(float, fields)
    except ValueError:
        wrong = next(f for f in fields if not _is_number(f))
        return f'{wrong!r} is not a number'
    count, numbers = keypoints
    wanted = 4 + count * numbers
    outline = count == 0 and len(values) >= 6 and len(values) % 2 == 0
    if len(values) != wanted and not outline:
        shapes = f'{wanted + 1} for a box' + (
            f' with {count} keypoints of {numbers} numbers, which kpt_shape in the data.yaml states'
            if count
            else ', or 7, 9, 11, … for an outline'
        )
        return f'{len(fields)} fields instead of {shapes}'
    if not (0 <= label < classes and label.is_integer()):
        return f'class {fields[0]}, but the names have the classes 0 to {classes - 1}'
    places = values if not count else [*values[:4], *(v for i, v in enumerate(values[4:]) if i % numbers < 2)]
    outside = [v for v in places if not -ROUNDING <= v <= 1 + ROUNDING]  # not a number is outside, too
    if outside:
        return f'{outside[0]:g} is not from 0 to 1; coordinates are in units of the width and the height of the image'
    result.classes.append(int(label))
    result.outlines.append(NO_CORNERS)
    if outline:
        result.outlines[-1] = corners = np.array(values).reshape(-1, 2)  # (p, 2)
        low, high = corners.min(0), corners.max(0)
        values = [*((low + high) / 2), *(high - low)]
    result.boxes.append(values[:4])
    if count:
        points = np.array(values[4:]).reshape(count, numbers)  # (K, 2 or 3)
        if numbers == 2:  # without visibility a keypoint is visible, and at the origin it is not labelled
            points = np.column_stack([points, np.where(points.any(1), 2.0, 0.0)])
        result.keypoints.append(points)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
