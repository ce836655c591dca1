"""COCO average precision with the annotations of the data set, so that a config names them only once."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from mmyolo.registry import METRICS

from mmdyn.annotations import Annotations
from mmdyn.datasets.array_dataset import annotations_of
from mmdyn.datasets.complete_coco import CompleteCOCO
from mmdyn.datasets.oriented import boxes_of

from .coco_evaluation import MAX_DETECTIONS, CocoEvaluation, Predicted
from .oriented_iou import OVERLAPS


@METRICS.register_module()
class DatasetCocoMetric(CocoMetric):
    """``mmdet.CocoMetric`` of the annotations that the data set has read, in any format, unless ``ann_file`` is given.

    ``metric`` may have ``'keypoints'``, too; their ``sigmas`` are those of the data set, COCO's for 17 keypoints, or
    one over their number each. ``metric='oriented'`` evaluates oriented boxes.

    Images that the data set skipped, or left out by its ``indices``, are not evaluated (``metainfo['skipped_images']``,
    ``['omitted_images']``). Boxes and masks are evaluated by faster-coco-eval. Arguments are those of
    ``mmdet.CocoMetric``.

    Args:
        overlap: Of oriented boxes: ``'exact'``, or ``'prob'`` for ProbIoU, as the original scores them.

    Attributes:
        evaluations: The last evaluation of boxes (``'bbox'``), and of masks (``'segm'``) with ``metric=['bbox',
            'segm']``; empty before.

    Example:
        >>> metric = DatasetCocoMetric(metric='bbox')
        >>> metric.dataset_meta = dict(ann_file=digits_image.parents[1] / 'annotations' / 'val.json')
        loading annotations into memory...
        >>> len(metric.img_ids)
        8
    """

    _coco_api: CompleteCOCO | None
    evaluations: Mapping[str, CocoEvaluation] = MappingProxyType({})
    _annotations: Annotations | None = None  # of the data set, unless a file was given
    _oriented_boxes: np.ndarray | None = None  # of its objects

    def __init__(self, *args, metric: str | Sequence[str] = 'bbox', overlap: str = 'exact', **kwargs) -> None:
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be 'exact' or 'prob', got {overlap!r}")
        metrics = [metric] if isinstance(metric, str) else list(metric)
        super().__init__(*args, metric=[m for m in metrics if m not in ('keypoints', 'oriented')], **kwargs)
        self.metrics, self.overlap = metrics, overlap

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch; arguments are those of the parent."""
        super().process(data_batch, data_samples)
        for (_, result), sample in zip(self.results[-len(data_samples) :], data_samples, strict=True):
            found = sample['pred_instances']
            if 'keypoints' in found:
                parts = found['keypoints'].cpu().numpy(), found['keypoint_scores'].cpu().numpy()[..., None]
                result['keypoints'] = np.concatenate(parts, 2)  # (p, K, 3)
            if 'oriented_boxes' in found:
                result['oriented_boxes'] = found['oriented_boxes'].cpu().numpy()

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set that is evaluated."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        if self._coco_api is not None:
            return
        annotations = annotations_of(meta)
        if annotations is not None:
            self._oriented_boxes = None
            self._annotations, self._coco_api = annotations, CompleteCOCO.of(annotations)
        elif 'ann_file' in meta:
            with get_local_path(meta['ann_file'], backend_args=self.backend_args) as path:
                self._coco_api = CompleteCOCO(path)
        else:
            return
        skipped = {*meta.get('skipped_images', ()), *meta.get('omitted_images', ())}
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
        images = _by_image(self._annotations, found, self.img_ids)
        sigmas = (self.dataset_meta or {}).get('sigmas')
        if 'oriented' in self.metrics and self._oriented_boxes is None:  # made once for all validations
            self._oriented_boxes = boxes_of(self._annotations)
        self.evaluations = {
            kind: CocoEvaluation(self._annotations, images, classes, kind, sigmas, self.overlap, self._oriented_boxes)
            for kind in self.metrics
        }
        result: dict[str, float] = {}
        for kind, evaluation in self.evaluations.items():
            figures = {f'{kind}_{name}': float(f'{round(v, 3)}') for name, v in evaluation.figures().items()}
            print_log(f'{kind}_mAP_copypaste: ' + ' '.join(f'{v:.3f}' for v in figures.values()), logger='current')
            result |= figures
        return result

    def _is_standard(self) -> bool:
        """Whether COCO's own figures of boxes, and of masks, are asked for, and nothing else."""
        return (
            self.metrics in (['bbox'], ['bbox', 'segm'], ['bbox', 'keypoints'], ['oriented'])
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
    return [
        Predicted(
            row,
            boxes=found['bboxes'],
            scores=found['scores'],
            labels=found['labels'],
            masks=found.get('masks', ()),
            keypoints=found.get('keypoints', np.zeros((0, 0, 3))),
            oriented_boxes=found.get('oriented_boxes', np.zeros((0, 5))),
        )
        for row, found in sorted(evaluated.items())
    ]
