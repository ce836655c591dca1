"""Tiles of large images with oriented boxes: images that a network can see whole, in COCO's format."""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmyolo.registry import DATASETS
from tqdm import tqdm

from mmdyn.errors import UserError
from mmdyn.files import write_image, write_json

from .data_source import DataSource
from .oriented import OrientedOutlines, corners_of_instance
from .pixels import read_pixels

EXACT_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp')  # of images whose pixels tiles keep; others become .jpg


class Tiled(NamedTuple):
    """What was made of a split."""

    images: int  # before
    tiles: int
    objects: int
    cut: int  # objects of which too little is in a tile, counted in every tile

    def __str__(self) -> str:
        return (
            f'{self.images} images, {self.tiles} tiles, {self.objects} objects; {self.cut} parts of objects at the '
            'border of a tile are left out there'
        )


def tile_starts(length: int, size: int, gap: int) -> list[int]:
    """Where tiles begin along a side of an image; the last one ends with the image.

    Args:
        length: Of the side, in pixels.
        size: Of a tile.
        gap: Pixels that neighbours share at least.

    Example:
        >>> tile_starts(2500, 1024, 200), tile_starts(600, 1024, 200)
        ([0, 824, 1476], [0])
    """
    if length <= size:
        return [0]
    step = size - gap
    return [*range(0, length - size, step), length - size]


def write_tiles(
    source: DataSource, out: str | Path, size: int = 1024, gap: int = 200, share: float = 0.7
) -> dict[str, Tiled]:
    """Cut the images of a data set into tiles.

    Args:
        source: The data set, read with its corners.
        out: Folder for ``annotations/SPLIT.json`` and the images of every split.
        size: Height and width of a tile; an image that is smaller is one tile.
        gap: Pixels that neighbours share at least.
        share: Of an object's area; with less of it in a tile it is left out there.

    Returns:
        What was made, by split.

    Raises:
        UserError: A value is invalid, ``out`` has files, or an image cannot be read.
    """
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f'{out} is not empty: set a new folder for the tiles')
    if size < 32:
        raise UserError(f'invalid --size {size}: set 32 pixels or more')
    if not 0 <= gap < size:
        raise UserError(f'invalid --gap {gap}: set pixels from 0 to less than --size {size}')
    if not 0 < share <= 1:
        raise UserError(f'invalid --share {share:g}: set a share above 0, at most 1')
    made = {}
    for split, arguments in source.splits.items():
        dataset = DATASETS.build(dict(arguments, corners=True, pipeline=[], test_mode=True))
        content, made[split] = _tile_split(dataset, out / split, size, gap, share, source.channels)
        write_json(out / 'annotations' / f'{split}.json', content)
    return made


def _tile_split(
    dataset: Any, folder: Path, size: int, gap: int, share: float, channels: int
) -> tuple[dict[str, list], Tiled]:
    table = dataset.annotations
    names = dataset.metainfo['classes']
    content: dict[str, list] = dict(
        images=[], annotations=[], categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)]
    )
    cut = largest = 0
    for index in tqdm(range(len(dataset)), desc=f'tiles in {folder}', unit='image', disable=None):
        info = dataset.get_data_info(index)
        path = Path(info['img_path'])
        pixels = read_pixels(path, channels)
        height, width = pixels.shape[:2]
        largest = max(largest, height, width)
        points = [corners_of_instance(each, height, width, str(path)) for each in info['instances']]
        outlines = OrientedOutlines.of(points, height, width)
        areas = np.array([cv2.contourArea(cv2.convexHull(each)) for each in outlines.points])
        suffix = path.suffix.lower() if path.suffix.lower() in EXACT_SUFFIXES else '.jpg'
        for top in tile_starts(height, size, gap):
            for left in tile_starts(width, size, gap):
                tile = pixels[top : top + size, left : left + size]
                name = f'{path.stem}__{size}__{left}__{top}{suffix}'
                write_image(folder / name, np.ascontiguousarray(tile))
                number = len(content['images']) + 1
                rows, columns = tile.shape[:2]
                content['images'].append(dict(id=number, file_name=name, width=columns, height=rows))
                parts = outlines.moved((-left, -top), rows, columns).clipped(np.zeros((1, 4)))
                seen = np.array([cv2.contourArea(cv2.convexHull(each)) for each in parts.points])
                cut += int(((seen > 0) & (seen < share * areas)).sum())
                for k in np.flatnonzero((seen > 0) & (seen >= share * areas)):
                    content['annotations'].append(
                        _annotation(len(content['annotations']) + 1, number, parts.points[k], info['instances'][k])
                    )
    if size > largest:
        print(
            f'{folder}: tiles of {size} pixels are larger than all images, the largest of which has {largest}, so '
            'every image is one tile: set a smaller --size to cut them'
        )
    return content, Tiled(len(table), len(content['images']), len(content['annotations']), cut)


def _annotation(number: int, image: int, points: np.ndarray, instance: dict[str, Any]) -> dict[str, Any]:
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return dict(
        id=number,
        image_id=image,
        category_id=instance['bbox_label'] + 1,
        bbox=[left, top, right - left, bottom - top],
        area=float(cv2.contourArea(cv2.convexHull(points))),
        iscrowd=int(instance['ignore_flag']),
        segmentation=[points.round(2).ravel().tolist()],
    )
