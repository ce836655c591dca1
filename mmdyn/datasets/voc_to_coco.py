"""Pascal VOC annotations to COCO: clips boxes to their image, drops invalid boxes, and counts both.

VOC: http://host.robots.ox.ac.uk/pascal/VOC/; COCO: https://cocodataset.org/#format-data.
VOC counts pixels from 1 and includes the last one; the box of COCO starts at 0.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmdyn.errors import UserError


@dataclass
class VocAnnotations:
    """The content of a COCO annotation file, and counts of the boxes that were clipped or dropped."""

    images: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    clipped: int = 0
    dropped: int = 0

    def content(self) -> dict:
        """The content of the COCO file as a dict."""
        categories = [dict(id=i, name=name) for i, name in enumerate(self.classes, 1)]
        return dict(images=self.images, annotations=self.annotations, categories=categories)

    def __str__(self) -> str:
        return (
            f'{len(self.images)} images, {len(self.annotations)} boxes of {", ".join(self.classes)}; '
            f'{self.clipped} clipped to their image, {self.dropped} dropped (no area, or outside)'
        )


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


def _parse(file: Path) -> ET.Element:
    if not file.is_file():
        raise UserError(f'no annotation at {file}, which the image set names')
    try:
        return ET.parse(file).getroot()
    except ET.ParseError as e:
        raise UserError(f'{file} is not XML: {e}') from None


def convert_voc(root: str | Path, image_set: str, classes: Sequence[str] | None = None) -> VocAnnotations:
    """Convert one image set of a Pascal VOC data set.

    Args:
        root: Folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        image_set: Name of a file in ``ImageSets/Main``, without ``.txt``.
        classes: Class names in the order of their ids; None takes all classes in the annotations, sorted.

    Returns:
        The annotations; ids start at 1.

    Raises:
        UserError: A file is missing or invalid, or a class is not in ``classes``.
    """
    root = Path(root)
    set_file = root / 'ImageSets' / 'Main' / f'{image_set}.txt'
    if not set_file.is_file():
        raise UserError(f'no image set at {set_file}; {root} should be a Pascal VOC folder with ImageSets/Main')
    files = [
        root / 'Annotations' / f'{line.split()[0]}.xml' for line in set_file.read_text().splitlines() if line.split()
    ]
    trees = {file: _parse(file) for file in files}
    names = sorted({_text(o, 'name', f) for f, tree in trees.items() for o in tree.iter('object')})
    result = VocAnnotations(classes=list(classes) if classes else names)
    unknown = [name for name in names if name not in result.classes]
    if unknown:
        raise UserError(f'{root} has objects of class {unknown[0]!r}, which is not among {result.classes}')
    for file, tree in trees.items():
        _add_image(result, file, tree)
    return result


def _add_image(result: VocAnnotations, file: Path, tree: ET.Element) -> None:
    width, height = int(_number(tree, 'size/width', file)), int(_number(tree, 'size/height', file))
    image_id = len(result.images) + 1
    result.images.append(dict(id=image_id, file_name=_text(tree, 'filename', file), width=width, height=height))
    for item in tree.iter('object'):
        raw = [_number(item, f'bndbox/{key}', file) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
        raw = [raw[0] - 1, raw[1] - 1, raw[2], raw[3]]  # from 0, last pixel included
        x1, x2 = (min(max(v, 0), width) for v in raw[::2])
        y1, y2 = (min(max(v, 0), height) for v in raw[1::2])
        if min(x2 - x1, y2 - y1) <= 1:  # corners that coincide, are swapped, or lie outside
            result.dropped += 1
            continue
        result.clipped += [x1, y1, x2, y2] != raw
        result.annotations.append(
            dict(
                id=len(result.annotations) + 1,
                image_id=image_id,
                category_id=result.classes.index(_text(item, 'name', file)) + 1,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=(x2 - x1) * (y2 - y1),
                iscrowd=int(item.findtext('difficult', '0').strip() == '1'),
            )
        )
