"""COCO average precision with the annotations of the data set, so that a config names them only once."""

from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from mmyolo.registry import METRICS

from mmdyn.annotations import Annotations
from mmdyn.datasets.array_dataset import annotations_of
from mmdyn.datasets.complete_coco import CompleteCOCO

from .coco_evaluation import MAX_DETECTIONS, CocoEvaluation, Predicted


@METRICS.register_module()
class DatasetCocoMetric(CocoMetric):
    """``mmdet.CocoMetric`` of the annotations that the data set has read, in any format, unless ``ann_file`` is given.

    Images that the data set skipped (``metainfo['skipped_images']``) are not evaluated. Boxes are evaluated by
    faster-coco-eval. Arguments are those of ``mmdet.CocoMetric``.

    Attributes:
        evaluation: The last evaluation of boxes, for a report; None before.

    Example:
        >>> metric = DatasetCocoMetric(metric='bbox')
        >>> metric.dataset_meta = dict(ann_file=digits_image.parents[1] / 'annotations' / 'val.json')
        loading annotations into memory...
        >>> len(metric.img_ids)
        8
    """

    _coco_api: CompleteCOCO | None
    evaluation: CocoEvaluation | None = None
    _annotations: Annotations | None = None  # of the data set, unless a file was given

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
            self._annotations, self._coco_api = annotations, CompleteCOCO.of(annotations)
        elif 'ann_file' in meta:
            with get_local_path(meta['ann_file'], backend_args=self.backend_args) as path:
                self._coco_api = CompleteCOCO(path)
        else:
            return
        skipped = set(meta.get('skipped_images', ()))
        self.img_ids = [i for i in self._coco_api.get_img_ids() if i not in skipped]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Figures of all images.

        Args:
            results: Pairs of :meth:`process`.
        """
        if self._annotations is None or not self._is_standard():
            return super().compute_metrics(results)
        classes = (self.dataset_meta or {})['classes']
        found = [prediction for _, prediction in results]
        if self.outfile_prefix is not None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes) if self._coco_api else []
            self.results2json(found, self.outfile_prefix)
        self.evaluation = CocoEvaluation(self._annotations, _by_image(self._annotations, found, self.img_ids), classes)
        figures = {f'bbox_{name}': float(f'{round(v, 3)}') for name, v in self.evaluation.figures().items()}
        print_log('bbox_mAP_copypaste: ' + ' '.join(f'{v:.3f}' for v in figures.values()), logger='current')
        return figures

    def _is_standard(self) -> bool:
        """Whether COCO's own figures of boxes are asked for, and nothing else."""
        return (
            self.metrics == ['bbox']
            and not (self.format_only or self.classwise or self.metric_items)
            and len(self.iou_thrs) == 10
            and sorted(self.proposal_nums) == [*MAX_DETECTIONS]
        )


def _by_image(annotations: Annotations, predictions: list[dict[str, Any]], ids: list) -> list[Predicted]:
    """The predictions of every image that is evaluated, in the order of the annotations."""
    found = {each['img_id']: each for each in predictions}
    rows = {annotations.image_id(row): row for row in range(len(annotations))}
    nothing = dict(bboxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int))
    evaluated = {rows[i]: found.get(i, nothing) for i in ids}
    return [Predicted(row, *(evaluated[row][k] for k in ('bboxes', 'scores', 'labels'))) for row in sorted(evaluated)]
