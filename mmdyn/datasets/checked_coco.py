"""A COCO-format data set that is checked before use, and takes its classes from the annotation file."""

import numpy as np
from mmyolo.registry import DATASETS

from mmdyn.annotations import Annotations
from mmdyn.annotations.coco import load_coco
from mmdyn.annotations.image_files import ImageFiles

from .array_dataset import ArrayDataset


@DATASETS.register_module()
class CheckedCocoDataset(ArrayDataset):
    """COCO-format data set, checked when it is loaded.

    Without ``metainfo`` its classes are the categories of the annotation file in their order there, so no config has to
    repeat them. The path of the annotation file is kept in ``metainfo['ann_file']``. Outlines are read with
    ``outlines=True``, and where a step of the pipeline has ``with_mask=True``. Arguments are those of
    ``mmdet.CocoDataset`` and :class:`ArrayDataset`.

    Raises:
        UserError: The annotation file or an image is invalid, see :mod:`mmdyn.annotations.coco`.

    Example:
        >>> root = digits_image.parents[1]
        >>> files = dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'))
        >>> dataset = CheckedCocoDataset(data_root=str(root), test_mode=True, **files)
        >>> len(dataset), dataset.metainfo['classes'][:3]
        (8, ('0', '1', '2'))
    """

    def __init__(self, *args, pipeline: list | tuple = (), **kwargs) -> None:
        self.with_mask = any(isinstance(step, dict) and step.get('with_mask') for step in pipeline)
        super().__init__(*args, pipeline=pipeline, **kwargs)

    @property
    def source(self) -> str:
        """The annotation file."""
        return str(self.ann_file)

    def read(self) -> tuple[Annotations, ImageFiles | None]:
        """Read the annotation file, or take what was read from it before."""
        self._metainfo['ann_file'] = self.source
        return load_coco(self.ann_file, self.outlines or self.with_mask, self.keypoints[0] > 0, self.corners), None

    def _posed(self) -> np.ndarray:
        """Objects with a labelled keypoint: in COCO, most people have none."""
        return np.asarray((self.annotations.keypoints[..., 2] > 0).any(1))
