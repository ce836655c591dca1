"""Any data set in one path: which format it has, its splits, its classes, and the data set of a config for each.

YOLO's ``data.yaml`` (https://docs.ultralytics.com/datasets/detect/), COCO files in the folders of COCO 2017 and of
Roboflow, Pascal VOC, and DOTA.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mmdyn.annotations import Annotations
from mmdyn.annotations.coco import load_coco
from mmdyn.annotations.dota import classes_of, in_order
from mmdyn.annotations.voc import class_names, files_of_set
from mmdyn.errors import UserError, listed_classes

VOC_IMAGES = 'JPEGImages/'
# A split, and what people call its files and folders.
NAMES = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}


class DataSource(NamedTuple):
    """A data set that was found.

    Args:
        path: What was given.
        format: ``'YOLO'``, ``'COCO'``, ``'VOC'``, ``'DOTA'`` or ``'folders'``.
        classes: Names.
        splits: Of ``'train'``, ``'val'`` and ``'test'`` those that there are: arguments of their data sets.
        channels: Channels of an image.
        skeleton: Pairs of keypoints that a line joins in pictures, counted from 1, where the data say.

    Example:
        >>> print(find_data(digits_image.parents[1]))
        data: ...digits, COCO
          train: annotations/train.json; val: annotations/val.json
          10 classes: 0, 1, 2, 3, 4, 5, 6, 7, …
    """

    path: Path
    format: str
    classes: tuple[str, ...]
    splits: dict[str, dict[str, Any]]
    channels: int = 3
    skeleton: Sequence[Sequence[int]] | None = None

    def __str__(self) -> str:
        where = '; '.join(f'{split}: {_place(arguments)}' for split, arguments in self.splits.items())
        return f'data: {self.path}, {self.format}\n  {where}\n  {listed_classes(self.classes)}'


def _place(arguments: dict[str, Any]) -> str:
    places = arguments.get('images') or arguments.get('ann_file') or arguments.get('image_set') or '.'
    return ', '.join([places] if isinstance(places, str) else places)


def find_data(path: str | Path, labels: str | None = None) -> DataSource:
    """Find out what a path holds.

    Args:
        path: A ``data.yaml``, or a folder.
        labels: What is to be read of the objects beside boxes, ``'outlines'``, ``'keypoints'`` or ``'corners'``; of
            COCO, files with keypoints are then preferred to others. ``'classes'`` means images in folders of classes.

    Raises:
        UserError: It holds none of the formats, or one that is incomplete.

    Example:
        >>> source = find_data(digits_image.parents[1])
        >>> source.format, source.splits['val']['ann_file'], len(source.classes)
        ('COCO', 'annotations/val.json', 10)
    """
    path = Path(path)
    if labels == 'classes':
        return _class_folders(path)
    if path.suffix in ('.yaml', '.yml'):
        return _yolo(path)
    if not path.is_dir():
        raise UserError(f'--data {path}: there is no folder or data.yaml at {path.absolute()}')
    coco = _coco(path, labels)
    # what tools/voc_to_coco.py has made of a VOC data set lies in its folder
    made = coco is not None and all(split['data_prefix']['img'] == VOC_IMAGES for split in coco.splits.values())
    found = _yolo_folder(path), coco, None if made else _voc(path), _dota(path)
    sources = [source for source in found if source is not None]
    if len(sources) > 1:
        raise UserError(
            f'--data {path} holds annotations of several formats: {" and ".join(s.format for s in sources)}. '
            'Give the data.yaml, or a folder that has those of one format only'
        )
    if not sources:
        looked_for = '\n  '.join(str(read.__doc__) for read in (_yolo_folder, _coco, _voc, _dota))
        raise UserError(f'--data {path}: no annotations. Looked for:\n  {looked_for}')
    return sources[0]


def _yolo_folder(root: Path) -> DataSource | None:
    """YOLO: a data.yaml (or the only .yaml) in the folder."""
    files = [*root.glob('data.y*ml')] or [*root.glob('*.yaml'), *root.glob('*.yml')]
    return _yolo(files[0]) if len(files) == 1 else None


def _yolo(path: Path) -> DataSource:
    if not path.is_file():
        raise UserError(f'--data {path}: there is no file at {path.absolute()}')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f'{path} is not YAML: {e}') from None
    if not isinstance(content, dict):
        raise UserError(f"{path} has no keys: a data.yaml has 'train', 'val' and 'names'")
    classes = _names(path, content)
    roots = _roots(path, content)
    splits = {}
    for split, names in NAMES.items():
        given = next((content[name] for name in names if content.get(name)), None)
        if given is not None:
            places = [given] if isinstance(given, str) else given
            if not isinstance(places, list) or not all(isinstance(p, str) for p in places):
                raise UserError(
                    f"{path}: '{split}' is {given!r}, where a folder, a text file or a list of them is needed"
                )
            splits[split] = dict(
                type='mmyolo.YOLOTextDataset', images=[str(_resolve(path, split, p, roots)) for p in places]
            )
    if 'train' not in splits and 'val' not in splits:
        raise UserError(f"{path} names neither 'train' nor 'val': set them to folders of images")
    arguments: dict[str, Any] = dict(metainfo=dict(classes=classes))
    if (shape := content.get('kpt_shape')) is not None:
        if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise UserError(f"{path}: 'kpt_shape' is {shape!r}, where [keypoints, 2 or 3] is needed")
        arguments['keypoints'] = tuple(shape)
        arguments['metainfo'] |= _keypoint_facts(path, content, shape[0])
    channels = content.get('channels', 3)
    if not isinstance(channels, int) or channels < 1:
        raise UserError(f"{path}: 'channels' is {channels!r}, where a number of 1 or more is needed")
    return DataSource(path, 'YOLO', classes, {k: v | arguments for k, v in splits.items()}, channels)


def _keypoint_facts(path: Path, content: dict, count: int) -> dict[str, Any]:
    """What a data.yaml says of its keypoints, under the names of a data set's metainfo."""
    facts: dict[str, Any] = {}
    for key, name in (('flip_idx', 'flip_indices'), ('kpt_oks_sigmas', 'sigmas')):
        values = content.get(key)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != count or not all(isinstance(v, int | float) for v in values):
            raise UserError(
                f"{path}: '{key}' is {values!r}, where a list of {count} numbers is needed, as in 'kpt_shape'"
            )
        facts[name] = values
    return facts


def _names(path: Path, content: dict) -> tuple[str, ...]:
    names = content.get('names')
    if isinstance(names, dict):
        if names.keys() != set(range(len(names))):
            raise UserError(
                f"{path}: 'names' has the numbers {sorted(map(str, names))}, where 0 to {len(names) - 1} are needed"
            )
        names = [names[i] for i in range(len(names))]
    if not names or not isinstance(names, list):
        raise UserError(f"{path} has no 'names': set it to the list of class names, as in names: [cat, dog]")
    count = content.get('nc', len(names))
    if count != len(names):
        raise UserError(f"{path}: 'nc' is {count}, but 'names' has {len(names)} names: correct one of them")
    return tuple(map(str, names))


def _roots(path: Path, content: dict) -> list[Path]:
    """Folders that the paths of a data.yaml can be relative to."""
    given = Path(str(content.get('path') or '.')).expanduser()
    return [given] if given.is_absolute() else list(dict.fromkeys([path.parent / given, given, path.parent]))


def _resolve(path: Path, split: str, place: str, roots: list[Path]) -> Path:
    """Where a place of a data.yaml is; Roboflow's begin with ``../`` although they are beside the file."""
    below = Path(place)
    candidates = [root / below for root in roots]
    if below.parts[:1] == ('..',):
        candidates += [root / Path(*below.parts[1:]) for root in roots]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    tried = '\n  '.join(str(c.absolute()) for c in dict.fromkeys(candidates))
    raise UserError(
        f"{path}: '{split}' is {place!r}, which is nowhere. Tried:\n  {tried}\nSet 'path' to the folder of the data"
    )


def _coco(root: Path, labels: str | None) -> DataSource | None:
    """COCO: annotations/*train*.json and *val*.json (person_keypoints_* of poses), or train/_annotations.coco.json."""
    splits: dict[str, dict[str, Any]] = {}
    tables: dict[str, Annotations] = {}
    preferred = 'person_keypoints' if labels == 'keypoints' else 'instances'
    for split, names in NAMES.items():
        for file, folders in _coco_files(root, names, preferred):
            if file.is_file():
                # read as the data set will, so that it is read once
                table = load_coco(file, **({labels: True} if labels else {}))
                tables[split] = table
                splits[split] = dict(
                    type='mmyolo.CheckedCocoDataset',
                    data_root=f'{root}/',
                    ann_file=file.relative_to(root).as_posix(),
                    data_prefix=dict(
                        img=f'{_image_folder(file, table.files[0], folders).relative_to(root).as_posix()}/'
                    ),
                )
                break
    if not splits:
        return None
    first, *others = tables
    for split in others:
        if tables[split].classes != tables[first].classes:
            raise UserError(
                f'--data {root}: {splits[first]["ann_file"]} has the categories {list(tables[first].classes)}, but '
                f'{splits[split]["ann_file"]} has {list(tables[split].classes)}: list the same ones in the same order'
            )
    count = tables[first].keypoints.shape[1]
    arguments = dict(keypoints=(count, 3)) if count else {}
    splits = {split: each | arguments for split, each in splits.items()}
    return DataSource(root, 'COCO', tables[first].classes, splits, skeleton=tables[first].skeleton or None)


def _coco_files(root: Path, names: tuple[str, ...], preferred: str) -> Iterator[tuple[Path, list[Path]]]:
    """Annotation files that a split may have, each with the folders that its images may be in."""
    for name in names:
        yield root / name / '_annotations.coco.json', [root / name]
        word = re.compile(rf'(^|[^a-z]){name}(\d{{4}})?($|[^a-z])')
        files = [f for f in sorted((root / 'annotations').glob('*.json')) if word.search(f.stem)]
        files = [f for f in files if f.stem.startswith(preferred)] or [
            f
            for f in files
            if not f.stem.startswith(('captions', 'person_keypoints', 'panoptic', 'stuff', 'image_info'))
        ]
        if len(files) > 1:
            raise UserError(
                f'--data {root}: {", ".join(f.name for f in files)} could all be the annotation file of {name}. '
                'Leave one in the folder annotations, or name it in a config'
            )
        for file in [*files, root / f'{name}.json']:
            place = file.stem.removeprefix(f'{preferred}_')
            folders = [
                root / place,
                root / 'images' / place,
                root / name,
                root / 'images' / name,
                root / 'images',
                root / VOC_IMAGES,
                root,
            ]
            yield file, folders


def _image_folder(file: Path, image: str, folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / image).is_file():
            return folder
    tried = '\n  '.join(str((folder / image).absolute()) for folder in dict.fromkeys(folders))
    raise UserError(f'{file} names the image {image}, which is nowhere. Tried:\n  {tried}')


def _voc(root: Path) -> DataSource | None:
    """VOC: Annotations and ImageSets/Main, or XML files beside the images in train and val."""
    splits: dict[str, dict[str, Any]] = {}
    files: list[Path] = []
    for split, names in NAMES.items():
        for name in names:
            arguments: dict[str, Any] = dict(type='mmyolo.VOCXmlDataset', data_root=f'{root}/')
            if (root / 'ImageSets' / 'Main' / f'{name}.txt').is_file():
                splits[split] = arguments | dict(image_set=name)
                files += files_of_set(root, name)
            elif own := sorted((root / name).glob('*.xml')):
                splits[split] = arguments | dict(data_root=f'{root / name}/')
                files += own
            else:
                continue
            break
    if not splits:
        return None
    classes = class_names(files, str(root.absolute()))
    arguments = dict(metainfo=dict(classes=classes))
    return DataSource(root, 'VOC', classes, {split: each | arguments for split, each in splits.items()})


def _dota(root: Path) -> DataSource | None:
    """DOTA: train and val, each with images and labelTxt* (text files of corners and class names)."""
    splits: dict[str, dict[str, Any]] = {}
    for split, names in NAMES.items():
        for name in names:
            folders = [*(root / name).glob('labelTxt*'), *(root / name).glob('labelTxt*/labelTxt*')]
            folders = sorted(f for f in folders if any(f.glob('*.txt')))
            if len(folders) > 1:
                raise UserError(
                    f'--data {root}: {" and ".join(f.name for f in folders)} could both have the labels of {name}. '
                    'Leave one there, or name it in a config (labels of the DOTADataset)'
                )
            if folders and (root / name / 'images').is_dir():
                splits[split] = dict(
                    type='mmyolo.DOTADataset',
                    data_root=f'{root / name}/',
                    labels=str(folders[0].relative_to(root / name)),
                )
                break
    if not splits:
        return None
    folders = [Path(arguments['data_root'], arguments['labels']) for arguments in splits.values()]
    classes = in_order(set().union(*map(classes_of, folders)))
    return DataSource(root, 'DOTA', classes, {k: v | dict(metainfo=dict(classes=classes)) for k, v in splits.items()})


def _class_folders(root: Path) -> DataSource:
    """Images for classification: train and val, each with a folder for every class."""
    if not root.is_dir():
        raise UserError(
            f'--data {root}: images for classification are in a folder, in train/CLASS/ and val/CLASS/ there; there is '
            f'{"a file" if root.exists() else "nothing"} at {root.absolute()}'
        )
    splits: dict[str, dict[str, Any]] = {}
    classes: dict[str, list[str]] = {}
    for split, names in NAMES.items():
        place = next((root / name for name in names if (root / name).is_dir()), None)
        if place is not None:
            splits[split] = dict(type='mmyolo.ImageFolder', data_root=str(place))
            classes[split] = sorted(f.name for f in place.iterdir() if f.is_dir() and not f.name.startswith('.'))
            if not classes[split]:
                raise UserError(
                    f'--data {root}: {place.name} has no folders, but images for classification are in '
                    f'{place.name}/CLASS/'
                )
    if 'train' not in splits or len(splits) < 2:
        raise UserError(
            f'--data {root}: images for classification are in train/CLASS/ and val/CLASS/ there; found '
            f'{", ".join(splits) or "neither"}'
        )
    first, *others = classes.values()
    for split, found in zip(list(classes)[1:], others, strict=True):
        if found != first:
            apart = sorted({*first} ^ {*found})[0]
            raise UserError(
                f'--data {root}: train and {split} have other classes, such as {apart!r}: make them the same'
            )
    return DataSource(root, 'folders', tuple(first), splits)
