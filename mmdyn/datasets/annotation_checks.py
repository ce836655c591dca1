"""Checks of a COCO annotation file and its images before training.

Format: https://cocodataset.org/#format-data. Files are only read.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from mmdyn.errors import UserError

SHOWN_FAULTS = 3
EXIF_ORIENTATION = 0x0112  # 5 to 8 mean that the picture is shown with its sides swapped
# The last bytes of a complete file in the two common formats.
ENDINGS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}

HELP_COCO = (
    'Download the data set (the top of its config says how; COCO 2017: https://cocodataset.org/#download), or set '
    'train_dataloader.dataset.data_root, and that of val_dataloader and test_dataloader, to its folder. '
    'To try mmdyn without data: python tools/train.py configs/yolo11n_dynconv_digits.py generates its own.'
)


class Requirement(NamedTuple):
    """A test of a value, and its description for messages."""

    holds: Callable[[Any], bool]
    description: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_ID = Requirement(lambda value: isinstance(value, int | str), 'an integer or a string')
_SIZE = Requirement(lambda value: _is_number(value) and value > 0, 'a positive number')
_NAME = Requirement(lambda value: isinstance(value, str), 'a string')
_BOX = Requirement(
    lambda value: isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)), 'four numbers'
)
_ANY = Requirement(lambda value: True, 'anything')

# List of the annotation file -> name of a record, and its required fields.
RECORDS: dict[str, tuple[str, dict[str, Requirement]]] = {
    'images': ('image', dict(id=_ID, file_name=_NAME, width=_SIZE, height=_SIZE)),
    'categories': ('category', dict(id=_ID, name=_ANY)),
    'annotations': ('annotation', dict(id=_ID, image_id=_ID, category_id=_ID, bbox=_BOX)),
}


def read_annotations(ann_file: str | Path) -> dict:
    """Read a COCO annotation file and check its records and references.

    Args:
        ann_file: The JSON file.

    Returns:
        The content of the file.

    Raises:
        UserError: The file does not exist, is not JSON or lists no image, a key is missing or has an invalid value, an
            id is repeated, or an annotation refers to an unknown image or category.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise UserError(f'no annotation file at {path.absolute()}. {HELP_COCO}')
    try:
        content = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(
            f'{path} is not JSON ({e}). A COCO annotation file is needed, see https://cocodataset.org/#format-data'
        ) from e
    for key in RECORDS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(
                f"{path} has no list '{key}'; a COCO annotation file has 'images', 'annotations' and 'categories'"
            )
    for key, (kind, requirements) in RECORDS.items():
        _check_records(path, content[key], kind, requirements)
    if not content['images']:
        raise UserError(f'{path} lists no image: set ann_file to a file with images')
    _check_references(path, content, 'image_id', 'images')
    _check_references(path, content, 'category_id', 'categories')
    return content


def _check_records(path: Path, records: list, kind: str, requirements: dict[str, Requirement]) -> None:
    for index, record in enumerate(records):
        missing = [key for key in requirements if not isinstance(record, dict) or key not in record]
        if missing:
            raise UserError(f"{path}: {kind} number {index} has no '{missing[0]}': {str(record)[:120]}")
        for key, requirement in requirements.items():
            if not requirement.holds(record[key]):
                raise UserError(
                    f'{path}: {kind} {record["id"]} has {key} {record[key]!r}, which is not {requirement.description}'
                )
    ids = Counter(record['id'] for record in records)
    repeated = [value for value, count in ids.items() if count > 1]
    if repeated:
        raise UserError(f'{path}: {len(repeated)} {kind} id(s) are used more than once, first {repeated[0]!r}')


def _check_references(path: Path, content: dict, key: str, target: str) -> None:
    known = {record['id'] for record in content[target]}
    bad = [a for a in content['annotations'] if a[key] not in known]
    if bad:
        examples = ', '.join(f'annotation {a["id"]}: {key} {a[key]}' for a in bad[:SHOWN_FAULTS])
        raise UserError(
            f"{path}: {len(bad)} annotation(s) refer to an entry that is not in '{target}' ({examples}). "
            'Remove or correct them'
        )


def bad_boxes(content: dict) -> list[dict]:
    """Annotations whose box has no area or is outside the image; a data set drops them.

    Args:
        content: A checked annotation file.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}

    def is_bad(annotation: dict) -> bool:
        x, y, w, h = annotation['bbox']
        width, height = sizes[annotation['image_id']]
        return w < 1 or h < 1 or min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0)

    return [a for a in content['annotations'] if is_bad(a)]


def image_fault(path: str | Path, width: int, height: int) -> str | None:
    """The fault of an image file, or None. Reads header and end of the file, and its pixels only if these are unclear.

    Args:
        path: The file.
        width: Width in pixels that the annotations state.
        height: Height in pixels that the annotations state.
    """
    path = Path(path)
    if not path.is_file():
        return 'missing'
    try:
        with Image.open(path) as image:
            size, turned = image.size, image.getexif().get(EXIF_ORIENTATION, 1) >= 5
            if not _ends_well(path, image.format):
                image.load()
    except OSError as e:
        return 'truncated' if 'truncated' in str(e) else f'damaged or not an image ({e})'
    if (width, height) != size and not (turned and (width, height) == size[::-1]):
        return f'{size[0]}x{size[1]} pixels, but the annotations state {width}x{height}'
    return None


def _ends_well(path: Path, kind: str | None) -> bool:
    if kind not in ENDINGS:
        return False
    with path.open('rb') as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return ENDINGS[kind] in file.read()


def faulty_images(images: list[dict], folder: str | Path) -> dict[int, str]:
    """Check every image of a data set, with a progress bar when there are many.

    Args:
        images: Image records of an annotation file.
        folder: Folder of the image files.

    Returns:
        Faults by image id; images without a fault are omitted.
    """

    def fault(record: dict) -> tuple[int, str | None]:
        return record['id'], image_fault(Path(folder) / record['file_name'], record['width'], record['height'])

    with ThreadPoolExecutor() as pool:
        results = tqdm(
            pool.map(fault, images),
            total=len(images),
            desc=f'checking images in {folder}',
            disable=len(images) < 5000,
        )
        return {image_id: what for image_id, what in results if what}
