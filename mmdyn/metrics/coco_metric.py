"""COCO average precision with the annotations of the data set, so that a config names them only once."""

from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmyolo.registry import METRICS

from mmdyn.datasets.array_dataset import annotations_of
from mmdyn.datasets.complete_coco import CompleteCOCO


@METRICS.register_module()
class DatasetCocoMetric(CocoMetric):
    """``mmdet.CocoMetric`` of the annotations that the data set has read, in any format, unless ``ann_file`` is given.

    Images that the data set skipped (``metainfo['skipped_images']``) are not evaluated. Arguments are those of
    ``mmdet.CocoMetric``.

    Example:
        >>> metric = DatasetCocoMetric(metric='bbox')
        >>> metric.dataset_meta = dict(ann_file=digits_image.parents[1] / 'annotations' / 'val.json')
        loading annotations into memory...
        >>> len(metric.img_ids)
        8
    """

    _coco_api: CompleteCOCO | None

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set that is evaluated."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        if self._coco_api is not None:
            return
        annotations = None if 'segm' in self.metrics else annotations_of(meta)
        if annotations is not None:
            self._coco_api = CompleteCOCO.of(annotations)
        elif 'ann_file' in meta:
            with get_local_path(meta['ann_file'], backend_args=self.backend_args) as path:
                self._coco_api = CompleteCOCO(path)
        else:
            return
        skipped = set(meta.get('skipped_images', ()))
        self.img_ids = [i for i in self._coco_api.get_img_ids() if i not in skipped]
