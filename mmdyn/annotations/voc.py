"""Pascal VOC annotations (http://host.robots.ox.ac.uk/pascal/VOC/), read in place.

VOC counts pixels from 1 and includes the last pixel; the boxes read here start at 0. Boxes are clipped to their image,
those without area are dropped, and both are counted.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdyn.errors import UserError

from .cache import cached
from .image_files import file_states
from .table import Annotations, Strings


def read_voc(files: Sequence[Path], what: str, classes: Sequence[str] | None = None) -> Annotations:
    """Read annotation files, one of every image.

    Args:
        files: XML files.
        what: What they are, for messages.
        classes: Class names in the order of their labels; None takes those of the files, sorted.

    Returns:
        The annotations. Difficult objects are ``crowd``; ``notes`` counts boxes that were ``clipped`` and ``dropped``.

    Raises:
        UserError: A file is missing or not what it should be, or a class is not in ``classes``.
    """
    trees = {file: parse_xml(file) for file in files}
    names = _names(trees)
    classes = list(classes) if classes else names
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise UserError(f'{what} has objects of class {unknown[0]!r}, which is not among {classes}')
    columns: dict[str, list[Any]] = {key: [] for key in ('images', 'boxes', 'labels', 'crowd')}
    notes = dict(clipped=0, dropped=0)
    sizes = []
    for index, (file, tree) in enumerate(trees.items()):
        size = width, height = int(_number(tree, 'size/width', file)), int(_number(tree, 'size/height', file))
        sizes.append(size)
        for item in tree.iter('object'):
            raw = [_number(item, f'bndbox/{key}', file) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
            raw = [raw[0] - 1, raw[1] - 1, raw[2], raw[3]]  # from 0, last pixel included
            x1, x2 = (min(max(v, 0), width) for v in raw[::2])
            y1, y2 = (min(max(v, 0), height) for v in raw[1::2])
            if min(x2 - x1, y2 - y1) <= 1:  # corners that coincide, are swapped, or lie outside
                notes['dropped'] += 1
                continue
            notes['clipped'] += [x1, y1, x2, y2] != raw
            columns['images'].append(index)
            columns['boxes'].append((x1, y1, x2 - x1, y2 - y1))
            columns['labels'].append(classes.index(_text(item, 'name', file)))
            columns['crowd'].append(item.findtext('difficult', '0').strip() == '1')
    names = [_text(tree, 'filename', file) for file, tree in trees.items()]
    return Annotations.of(files=names, sizes=sizes, classes=classes, notes=notes, **columns)


def class_names(files: Sequence[Path], what: str) -> tuple[str, ...]:
    """Names of the classes in annotation files, sorted; from the cache if no file has changed.

    Raises:
        UserError: A file is missing or not what it should be.
    """

    def build() -> dict[str, np.ndarray]:
        names = Strings.of(_names({file: parse_xml(file) for file in files}))
        return dict(name_bytes=names.data, name_ends=names.ends)

    arrays, _ = cached(f'VOC classes of {what}', file_states(files), build)
    return tuple(Strings(arrays['name_bytes'], arrays['name_ends']))


def _names(trees: dict[Path, ET.Element]) -> list[str]:
    return sorted({_text(o, 'name', file) for file, tree in trees.items() for o in tree.iter('object')})


def files_of_set(root: str | Path, image_set: str) -> list[Path]:
    """The annotation files of an image set.

    Args:
        root: Folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        image_set: Name of a file in ``ImageSets/Main``, without ``.txt``.

    Raises:
        UserError: There is no such file.
    """
    root = Path(root)
    set_file = root / 'ImageSets' / 'Main' / f'{image_set}.txt'
    if not set_file.is_file():
        raise UserError(f'no image set at {set_file}; {root} should be a Pascal VOC folder with ImageSets/Main')
    lines = [line.split() for line in set_file.read_text().splitlines()]
    return [root / 'Annotations' / f'{fields[0]}.xml' for fields in lines if fields]


def _text(element: ET.Element, path: str, file: Path) -> str:
    value = element.findtext(path)
    if value is None:
        raise UserError(f'{file} has no <{path}> in <{element.tag}>')
    return value.strip()


def _number(element: ET.Element, path: str, file: Path) -> float:
    value = _text(element, path, file)
    try:
        return float(value)
    except ValueError:
        raise UserError(f'{file}: <{path}> is {value!r}, not a number') from None


def parse_xml(file: Path) -> ET.Element:
    """The content of an annotation file."""
    if not file.is_file():
        raise UserError(f'no annotation at {file}, which the image set names')
    try:
        return ET.parse(file).getroot()
    except ET.ParseError as e:
        raise UserError(f'{file} is not XML: {e}') from None
