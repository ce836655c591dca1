"""A COCO-format data set that is checked before use, and takes its classes from the annotation file.

On MMYOLO's ``YOLOv5CocoDataset``.
"""

import logging
from pathlib import Path
from typing import Literal

from mmengine.logging import print_log
from mmyolo.datasets import YOLOv5CocoDataset
from mmyolo.registry import DATASETS

from mmdyn.errors import UserError

from .annotation_checks import SHOWN_FAULTS, bad_boxes, faulty_images, read_annotations
from .complete_coco import CompleteCOCO

OnFault = Literal['error', 'skip']


@DATASETS.register_module()
class CheckedCocoDataset(YOLOv5CocoDataset):
    """COCO-format data set, checked when it is loaded.

    Without ``metainfo`` its classes are the categories of the annotation file in their order, so no config has to
    repeat them. The path of the annotation file is stored in ``metainfo['ann_file']`` for :class:`DatasetCocoMetric`.

    Args:
        check_images: Check header and end of every image file; costs about 0.1 ms per image on a local disk.
        on_bad_images: ``'error'`` stops at missing, truncated or wrongly sized images, ``'skip'`` omits them and logs
            their number.
        on_bad_boxes: The same for boxes without area or outside their image; COCO itself has some. They are not used
            in training, but evaluation uses the annotation file and counts them.
        **kwargs: As in ``YOLOv5CocoDataset``.

    Raises:
        UserError: The annotation file or an image is invalid, see :mod:`mmdyn.datasets.annotation_checks`.

    Example:
        >>> root = digits_image.parents[1]
        >>> files = dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'))
        >>> dataset = CheckedCocoDataset(data_root=str(root), test_mode=True, **files)
        loading annotations into memory...
        >>> len(dataset), dataset.metainfo['classes'][:3]
        (8, ('0', '1', '2'))
    """

    METAINFO: dict = {}
    COCOAPI = CompleteCOCO

    def __init__(
        self,
        *args,
        check_images: bool = True,
        on_bad_images: OnFault = 'error',
        on_bad_boxes: OnFault = 'skip',
        **kwargs,
    ) -> None:
        for name, value in dict(on_bad_images=on_bad_images, on_bad_boxes=on_bad_boxes).items():
            if value not in ('error', 'skip'):
                raise ValueError(f"{name} must be 'error' or 'skip', got {value!r}")
        self.check_images = check_images
        self.on_bad_images = on_bad_images
        self.on_bad_boxes = on_bad_boxes
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Check the annotation file and the images, then load them as COCO does."""
        content = read_annotations(self.ann_file)
        self._settle_classes(content['categories'])
        self._report('boxes', self._box_faults(content), self.on_bad_boxes)
        faults = faulty_images(content['images'], self.data_prefix['img']) if self.check_images else {}
        self._report('images', self._name(faults, content['images']), self.on_bad_images)
        self._metainfo['skipped_images'] = list(faults)
        data_list = [info for info in super().load_data_list() if info['img_id'] not in faults]
        if not data_list:
            raise UserError(f'{self.ann_file}: no usable image in {Path(self.data_prefix["img"]).absolute()}')
        return data_list

    def filter_data(self) -> list[dict]:
        """Filter as COCO does; raise an error if no image is left."""
        data_list = super().filter_data()
        if not data_list:
            raise UserError(f'{self.ann_file}: no image is left after filter_cfg={self.filter_cfg}')
        if not self.test_mode and not any(info['instances'] for info in data_list):
            raise UserError(
                f'{self.ann_file}: no image has a box to train on. Are the boxes in pixels, as [x, y, width, height]?'
            )
        return data_list

    def _settle_classes(self, categories: list[dict]) -> None:
        """Take the classes from the file, or check those given: mmdet numbers labels in the order of the file."""
        if isinstance(self._metainfo.get('classes'), str):
            raise UserError(f'metainfo.classes must be a tuple of names, got the string {self._metainfo["classes"]!r}')
        in_file = [c['name'] for c in categories]
        classes = tuple(self._metainfo.get('classes') or in_file)
        unknown = [name for name in classes if name not in in_file]
        if unknown:
            raise UserError(
                f'{self.ann_file} has no category {unknown[0]!r} named in metainfo.classes; it has {in_file}'
            )
        in_order = tuple(name for name in in_file if name in classes)
        if classes != in_order:
            raise UserError(f'metainfo.classes must be in the order of {self.ann_file}: {in_order}, got {classes}')
        self._metainfo.update(classes=classes, ann_file=str(self.ann_file))

    @staticmethod
    def _box_faults(content: dict) -> list[str]:
        return [f'annotation {a["id"]}, box {a["bbox"]}' for a in bad_boxes(content)]

    @staticmethod
    def _name(faults: dict[int, str], images: list[dict]) -> list[str]:
        files = {image['id']: image['file_name'] for image in images}
        return [f'{files[image_id]}: {what}' for image_id, what in faults.items()]

    def _report(self, what: str, faults: list[str], reaction: OnFault) -> None:
        if not faults:
            return
        more = f' and {len(faults) - SHOWN_FAULTS} more' if len(faults) > SHOWN_FAULTS else ''
        message = f'{self.ann_file}: {len(faults)} bad {what} ({"; ".join(faults[:SHOWN_FAULTS])}{more})'
        if reaction == 'error':
            raise UserError(f"{message}. Correct them, or set on_bad_{what}='skip' in the data set's config")
        note = ' of training; evaluation counts them' if what == 'boxes' else ''
        print_log(f'{message}: omitted{note}', logger='current', level=logging.WARNING)
