"""A data set of images with YOLO text labels, read in place: nothing is written beside the data."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmyolo.registry import DATASETS

from mmdyn.annotations import Annotations, read_yolo
from mmdyn.annotations.image_files import ImageFiles
from mmdyn.annotations.yolo import images_of
from mmdyn.errors import UserError

from .array_dataset import ArrayDataset


@DATASETS.register_module()
class YOLOTextDataset(ArrayDataset):
    """Images and their text labels; see :mod:`mmdyn.annotations.yolo` for the format.

    The labels of ``…/images/a.jpg`` are ``…/labels/a.txt``; those of an image in no folder ``images`` are beside it.

    Args:
        images: Folders, and text files with a path a line; one or a list.
        metainfo: Has ``classes``, names in the order of their numbers.
        **kwargs: As in :class:`ArrayDataset`.

    Raises:
        UserError: There are no images, or lines are not labels.

    Example:
        >>> for name in ('images', 'labels'):
        ...     (folder / name).mkdir()
        >>> _ = (folder / 'images' / digits_image.name).write_bytes(digits_image.read_bytes())
        >>> _ = (folder / 'labels' / digits_image.with_suffix('.txt').name).write_text('1 0.5 0.5 0.2 0.1')
        >>> dataset = YOLOTextDataset(images='images', data_root=str(folder), metainfo=dict(classes=('cat', 'dog')))
        >>> dataset[0]['instances'][0]['bbox_label']
        1
    """

    def __init__(self, *args, images: str | Sequence[str], data_root: str = '', **kwargs) -> None:
        self.images = [images] if isinstance(images, str) else list(images)
        super().__init__(*args, data_root=data_root, data_prefix=dict(img=''), **kwargs)

    @property
    def source(self) -> str:
        """The folders and text files."""
        return ', '.join(str(Path(self.data_root or '', place)) for place in self.images)

    def read(self) -> tuple[Annotations, ImageFiles | None]:
        """Read the labels, or take what was read from them before."""
        classes = self._metainfo.get('classes')
        if not classes or isinstance(classes, str):
            raise UserError(
                f'{self.source}: YOLO labels name no classes: set metainfo=dict(classes=(…)), got {classes!r}'
            )
        images = images_of([Path(self.data_root or '', place) for place in self.images], self.source)
        annotations, files = read_yolo(images, classes, self.source, self.keypoints)
        notes = annotations.notes
        print_log(
            f'{self.source}: {len(annotations)} images, {len(annotations.boxes)} objects; {notes["background"]} images '
            f'have none, {notes["orphans"]} label files have no image, {notes["repeated"]} repeated lines are left out',
            'current',
        )
        lengths = np.diff(annotations.point_starts)
        if not self.outlines and len(lengths) and (lengths == 4).all():
            print_log(
                f'{self.source}: every object has four corners, as oriented boxes have: the upright boxes around them '
                'are taken; obb/yolo11n_dota and other configs in configs/obb are of oriented boxes',
                'current',
                level=logging.WARNING,
            )
        return annotations, files

    def _folder(self) -> Path:
        return Path()
