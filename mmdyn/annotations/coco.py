"""COCO annotation files (https://cocodataset.org/#format-data), read into arrays and checked.

msgspec decodes into typed records, so types are checked while decoding, and polygons are skipped unless asked for.
"""

import json
import mmap
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from mmdyn.errors import UserError
from mmdyn.models.oriented import corners_of

from .cache import cached
from .image_files import file_states
from .table import Annotations, Identifier

SHOWN_FAULTS = 3
FULL_TURN = 6.3  # in radians; larger angles are degrees

HELP_COCO = (
    'Download the data set (the top of its config says how; COCO 2017: https://cocodataset.org/#download), or set '
    'train_dataloader.dataset.data_root, and that of val_dataloader and test_dataloader, to its folder. '
    'To try mmdyn without data: mmdyn train yolo11n_dynconv_digits generates its own.'
)


class _Image(msgspec.Struct, gc=False):
    id: Identifier
    file_name: str
    width: float
    height: float


class _Category(msgspec.Struct, gc=False):
    id: Identifier
    name: Any


class _Annotation(msgspec.Struct, gc=False):
    id: Identifier
    image_id: Identifier
    category_id: Identifier
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: Any = 0
    ignore: Any = 0


class _Outlined(_Annotation, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw(b'')


class _Oriented(_Outlined, gc=False):
    bbox: list[float]  # type: ignore[assignment]


class _Posed(_Annotation, gc=False):
    keypoints: list[float] = []


class _PosedCategory(_Category, gc=False):
    keypoints: list[str] = []
    skeleton: list[tuple[int, int]] = []


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


class _FileWithOutlines(_File):
    annotations: list[_Outlined]  # type: ignore[assignment]


class _FileWithCorners(_File):
    annotations: list[_Oriented]  # type: ignore[assignment]


class _FileWithKeypoints(_File):
    annotations: list[_Posed]  # type: ignore[assignment]
    categories: list[_PosedCategory]  # type: ignore[assignment]


KINDS = {'images': 'image', 'categories': 'category', 'annotations': 'annotation'}  # list -> one of its records
MEANING = dict.fromkeys(('id', 'image_id', 'category_id'), 'an integer or a string')
MEANING |= dict.fromkeys(('width', 'height'), 'a positive number') | dict(
    file_name='a string', bbox='four numbers', area='a number'
)


def read_coco(
    ann_file: str | Path, outlines: bool = False, keypoints: bool = False, corners: bool = False
) -> Annotations:
    """Read a COCO annotation file.

    An area that is missing or zero becomes that of the box, as many exporters write none.

    Args:
        ann_file: The JSON file.
        outlines: Keep polygons and run-length codes, too.
        keypoints: Keep keypoints, too, instead of outlines.
        corners: Keep outlines, and take a ``bbox`` of five numbers for an oriented box: its centre, width, height, and
            angle in radians, clockwise.

    Raises:
        UserError: The file does not exist, is not JSON or lists no image, a key is missing or has an invalid value, an
            id is repeated, or an annotation refers to an unknown image or category.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise UserError(f'no annotation file at {path.absolute()}. {HELP_COCO}')
    outlines = outlines or corners
    form = _FileWithKeypoints if keypoints else _FileWithOutlines if outlines else _File
    content = _decode(path, _FileWithCorners if corners else form)
    images, categories, annotations = content.images, content.categories, content.annotations
    if corners:
        _corners_for_outlines(path, annotations)
    if not images:
        raise UserError(f'{path} lists no image: set ann_file to a file with images')
    for kind, records in (('image', images), ('category', categories), ('annotation', annotations)):
        _refuse_repeated(path, kind, [record.id for record in records])
    sizes = np.array([(image.width, image.height) for image in images])
    if (sizes <= 0).any():
        first = images[int((sizes <= 0).any(1).argmax())]
        key = 'width' if first.width <= 0 else 'height'
        raise UserError(f'{path}: image {first.id} has {key} {getattr(first, key):g}, which is not a positive number')
    boxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    areas = np.array([a.area or 0.0 for a in annotations], np.float64)
    return Annotations.of(
        files=(image.file_name for image in images),
        sizes=sizes,
        images=_references(path, annotations, 'image_id', images, 'images'),
        boxes=boxes,
        labels=_references(path, annotations, 'category_id', categories, 'categories'),
        classes=(str(category.name) for category in categories),
        areas=np.where(areas > 0, areas, boxes[:, 2] * boxes[:, 3]),
        crowd=[bool(a.iscrowd) for a in annotations],
        ignored=[bool(a.ignore) for a in annotations],
        image_ids=[image.id for image in images],
        class_ids=[category.id for category in categories],
        segmentations=[bytes(a.segmentation).decode() for a in annotations] if outlines else None,  # type: ignore[attr-defined]
        **(_keypoints(path, content) if keypoints else {}),
    )


def _corners_for_outlines(path: Path, annotations: list[Any]) -> None:
    """Give objects whose box has five numbers their corners as an outline, and the upright box around them."""
    wrong = next((a for a in annotations if len(a.bbox) not in (4, 5)), None)
    if wrong is not None:
        raise UserError(f'{path}: annotation {wrong.id} has bbox {wrong.bbox}, which is not four or five numbers')
    turned = [a for a in annotations if len(a.bbox) == 5]
    if not turned:
        return
    boxes = np.array([a.bbox for a in turned])
    if (np.abs(boxes[:, 4]) > FULL_TURN).any():
        worst = turned[int(np.abs(boxes[:, 4]).argmax())]
        raise UserError(
            f'{path}: annotation {worst.id} has the angle {worst.bbox[4]:g}, which is more than a full turn: angles '
            'are in radians, so multiply degrees by pi / 180'
        )
    points = corners_of(torch.from_numpy(boxes)).numpy()  # (n, 4, 2)
    low, high = points.min(1), points.max(1)
    for each, corners, box in zip(turned, points, np.concatenate([low, high - low], 1), strict=True):
        each.bbox = box.tolist()
        if not bytes(each.segmentation).strip(b' []'):
            each.segmentation = msgspec.Raw(msgspec.json.encode([corners.ravel().tolist()]))


def _keypoints(path: Path, content: Any) -> dict[str, Any]:
    """Keypoints of all objects, (N, K, 3), not labelled where an object has none; and what a category says of them."""
    lengths = {len(a.keypoints) for a in content.annotations} - {0}
    first = next((c for c in content.categories if c.keypoints), None)
    lengths |= {3 * len(first.keypoints)} if first else set()
    if len(lengths) > 1 or any(length % 3 for length in lengths):
        raise UserError(
            f'{path}: objects have {" and ".join(map(str, sorted(lengths)))} numbers of keypoints: give all of them '
            'three numbers for each of the same keypoints'
        )
    count = max(lengths, default=0) // 3
    nothing = [0.0] * 3 * count
    points = np.array([a.keypoints or nothing for a in content.annotations], np.float64)
    return dict(
        keypoints=points.reshape(len(content.annotations), count, 3),
        keypoint_names=first.keypoints if first else (),
        skeleton=first.skeleton if first else (),
    )


def load_coco(
    ann_file: str | Path, outlines: bool = False, keypoints: bool = False, corners: bool = False
) -> Annotations:
    """What :func:`read_coco` reads, from the cache if the file has not changed."""
    path = Path(ann_file)
    kept = ' with corners' if corners else ' with keypoints' if keypoints else ' with outlines' if outlines else ''
    name = f'COCO annotations of {path.absolute()}{kept}'
    arrays, origin = cached(name, file_states([path]), lambda: read_coco(path, outlines, keypoints, corners).arrays())
    return Annotations.from_arrays(arrays, origin)


def _decode(path: Path, kind: type[_File]) -> _File:
    with path.open('rb') as file:
        empty = path.stat().st_size == 0  # nothing that could be mapped
        text: Any = b'' if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError as e:
            raise UserError(f'{path}{_explain(str(e), text)}') from None
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise UserError(
                f'{path} is not JSON ({e}). A COCO annotation file is needed, see https://cocodataset.org/#format-data'
            ) from e


def _explain(message: str, text: Any) -> str:
    """What msgspec found, with the record and the value that it names."""
    place = re.search(r'`\$\.(\w+)\[(\d+)\](?:\.(\w+))?', message)
    missing = re.search(r'missing required field `(\w+)`', message)
    if place is None:
        name = missing[1] if missing else 'images'
        return f" has no list '{name}'; a COCO annotation file has 'images', 'annotations' and 'categories'"
    table, index, key = place.groups()
    record = json.loads(bytes(text))[table][int(index)]
    kind = KINDS[table]
    if key is None:
        missing_key = missing[1] if missing else 'id'
        return f": {kind} number {index} has no '{missing_key}': {str(record)[:120]}"
    return f': {kind} {record.get("id")} has {key} {record[key]!r}, which is not {MEANING.get(key, "valid")}'


def _refuse_repeated(path: Path, kind: str, ids: list[Identifier]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[Identifier] = set()
        repeated = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        count = len(set(repeated))
        raise UserError(f'{path}: {count} {kind} id(s) are used more than once, first {repeated[0]!r}')


def _references(path: Path, annotations: list[_Annotation], key: str, records: list, target: str) -> np.ndarray:
    """Index of the record that every annotation refers to, (N,)."""
    index = {record.id: i for i, record in enumerate(records)}
    rows = np.fromiter((index.get(getattr(a, key), -1) for a in annotations), np.int64, len(annotations))
    bad = [annotations[i] for i in np.flatnonzero(rows < 0)]
    if bad:
        examples = ', '.join(f'annotation {a.id}: {key} {getattr(a, key)}' for a in bad[:SHOWN_FAULTS])
        raise UserError(
            f"{path}: {len(bad)} annotation(s) refer to an entry that is not in '{target}' ({examples}). "
            'Remove or correct them'
        )
    return rows
