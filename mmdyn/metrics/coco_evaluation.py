"""COCO's evaluation of predictions against annotations in memory, by faster-coco-eval, whose figures are COCO's."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as coco_mask  # that of pycocotools fails from 256 masks on, under NumPy 2

from mmdyn.annotations import Annotations
from mmdyn.datasets.oriented import boxes_of
from mmdyn.models.yolo11_pose_head import usual_sigmas

from .oriented_iou import overlaps_of

AREAS = {'s': 1, 'm': 2, 'l': 3}  # small, medium, large, after all
MAX_DETECTIONS = (1, 10, 100)


class Predicted(NamedTuple):
    """Predictions of an image.

    Args:
        row: Position of the image in the annotations.
        boxes: Corners in pixels, (p, 4).
        scores: (p,).
        labels: Positions in the evaluated classes, (p,).
        masks: Run-length codes of COCO, of length p; empty for other tasks.
        keypoints: Position and score of K keypoints, (p, K, 3); empty for other tasks.
        oriented_boxes: See :mod:`mmdyn.models.oriented`, (p, 5); empty for other tasks.
    """

    row: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[dict[str, Any]] = ()
    keypoints: np.ndarray = np.zeros((0, 0, 3))
    oriented_boxes: np.ndarray = np.zeros((0, 5))


class OrientedEvaluation(COCOeval_faster):
    """COCO's evaluation of oriented boxes; groups are matched as in COCO, by the share of a prediction.

    Args:
        *args: As in the parent.
        overlap: ``'exact'``, or ``'prob'`` for ProbIoU.
        **kwargs: As in the parent.
    """

    def __init__(self, *args, overlap: str = 'exact', **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.overlap = overlap

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N803, the parent's names
        """Overlaps of the predictions of a class in an image, by falling score, and its objects."""
        truth, found = (
            dataset.get_instances([imgId], [catId], True)[0][0] for dataset in (self.gt_dataset, self.dt_dataset)
        )
        if not truth or not found:
            return []
        order = np.argsort([-each['score'] for each in found], kind='stable')[: self.params.maxDets[-1]]
        boxes = np.array([found[i]['oriented'] for i in order])
        others = np.array([each['oriented'] for each in truth])
        groups = np.array([bool(each['iscrowd']) for each in truth])
        return overlaps_of(self.overlap, boxes, others, groups)


class CocoEvaluation:
    """Average precision of predictions.

    Args:
        annotations: What is there.
        predictions: Of every image that is evaluated.
        classes: Names of the classes that are evaluated; those of the annotations by default.
        iou_type: ``'bbox'``, ``'segm'``, ``'keypoints'`` or ``'oriented'``.
        sigmas: Of the keypoints, of length K; by default those of :func:`usual_sigmas`.
        overlap: Of oriented boxes: ``'exact'``, or ``'prob'`` for ProbIoU, as the original scores them.
        oriented_boxes: Those of the objects, (N, 5), where they are known; otherwise they are made of the annotations.

    Example:
        >>> table = Annotations.of(files=['a.jpg'], sizes=[(60, 40)], images=[0], boxes=[(5, 5, 20, 20)], labels=[0],
        ...                        classes=['cat'])
        >>> found = Predicted(0, np.array([[5, 5, 25, 25]]), np.array([0.9]), np.array([0]))
        >>> round(CocoEvaluation(table, [found]).figures()['mAP'], 6)
        1.0
    """

    def __init__(
        self,
        annotations: Annotations,
        predictions: Sequence[Predicted],
        classes: Sequence[str] | None = None,
        iou_type: str = 'bbox',
        sigmas: Sequence[float] | None = None,
        overlap: str = 'exact',
        oriented_boxes: np.ndarray | None = None,
    ) -> None:
        if oriented_boxes is not None:
            self.oriented_boxes = oriented_boxes
        self.sigmas, self.overlap = sigmas, overlap
        self.annotations, self.predictions, self.iou_type = annotations, predictions, iou_type
        self.classes = tuple(classes if classes is not None else annotations.classes)
        self.columns = np.array([annotations.classes.index(name) for name in self.classes], int)

    @cached_property
    def oriented_boxes(self) -> np.ndarray:
        """Those of the objects, (N, 5)."""
        return boxes_of(self.annotations)

    @cached_property
    def precision(self) -> np.ndarray:
        """Precision by IoU threshold, recall, class, area and number of detections; -1 where there is no object."""
        truth = COCO()
        truth.dataset = self._truth()
        truth.createIndex()
        found = COCO()
        found.dataset = dict(truth.dataset, annotations=self._found())
        found.createIndex()
        quiet: dict[str, Any] = dict(print_function=lambda *_: None)
        if self.iou_type == 'oriented':
            evaluation = OrientedEvaluation(truth, found, 'bbox', overlap=self.overlap, **quiet)
        else:
            evaluation = COCOeval_faster(truth, found, self.iou_type, **quiet)
        evaluation.params.imgIds = [p.row + 1 for p in self.predictions]
        evaluation.params.catIds = (self.columns + 1).tolist()
        if self.iou_type == 'keypoints':
            sigmas = self.sigmas or usual_sigmas(self.annotations.keypoints.shape[1])
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        else:
            evaluation.params.maxDets = list(MAX_DETECTIONS)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval['precision'])

    def _truth(self) -> dict[str, Any]:
        """The annotations with numbers for all ids, which may be strings."""
        content = self.annotations.as_coco(self.iou_type == 'segm', self.iou_type == 'keypoints')
        numbers = {image['id']: row for row, image in enumerate(content['images'], 1)}
        labels = {category['id']: i for i, category in enumerate(content['categories'], 1)}
        for image in content['images']:
            image['id'] = numbers[image['id']]
        for category in content['categories']:
            category['id'] = labels[category['id']]
        for each in content['annotations']:
            each.update(image_id=numbers[each['image_id']], category_id=labels[each['category_id']])
        if self.iou_type == 'oriented':
            for each, box in zip(content['annotations'], self.oriented_boxes, strict=True):
                each.update(oriented=box.tolist(), area=float(box[2] * box[3]))
        return content

    def _found(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for image in self.predictions:
            boxes = with_sides(image.boxes)
            categories = self.columns[image.labels] + 1
            parts = zip(boxes.tolist(), image.scores.tolist(), categories.tolist(), strict=True)
            for box, score, category in parts:
                number, area = len(rows) + 1, box[2] * box[3]
                rows.append(
                    dict(
                        id=number,
                        image_id=image.row + 1,
                        category_id=category,
                        bbox=box,
                        score=score,
                        area=area,
                        iscrowd=0,
                    )
                )
            if self.iou_type == 'oriented':
                for row, turned in zip(rows[len(rows) - len(boxes) :], image.oriented_boxes.tolist(), strict=True):
                    row.update(oriented=turned, area=turned[2] * turned[3])
            if self.iou_type == 'segm':
                areas = coco_mask.area(list(image.masks)) if len(image.masks) else []
                for row, mask, area in zip(rows[len(rows) - len(boxes) :], image.masks, areas, strict=True):
                    row.update(segmentation=mask, area=float(area))
            if self.iou_type == 'keypoints':
                for row, points in zip(rows[len(rows) - len(boxes) :], image.keypoints, strict=True):
                    extent = points[:, :2].max(0) - points[:, :2].min(0)  # by which COCO takes its size
                    row.update(keypoints=points.ravel().tolist(), num_keypoints=len(points), area=float(extent.prod()))
        return rows

    def figures(self) -> dict[str, float]:
        """AP over thresholds, at 0.5 and at 0.75, and of small, medium and large objects; -1 where there are none.

        Keypoints of small objects are not evaluated on their own.
        """
        whole = self.precision[:, :, :, :, -1]
        figures = {'mAP': _mean(whole[..., 0]), 'mAP_50': _mean(whole[0, ..., 0]), 'mAP_75': _mean(whole[5, ..., 0])}
        areas = AREAS if self.iou_type != 'keypoints' else {'m': 1, 'l': 2}
        return figures | {f'mAP_{name}': _mean(whole[..., area]) for name, area in areas.items()}

    def voc_ap50(self) -> float:
        """Mean over the classes of AP50 by precision at the recalls 0, 0.1, …, 1: VOC's of 2007, which DOTA takes.

        DOTA's own evaluation is of merged tiles, takes the overlap of rectangles for difficult objects, too, and counts
        a detection as false whose best object is taken. -1 where there are no objects. Source:
        https://captain-whu.github.io/DOTA/evaluation.html
        """
        return _mean(self.precision[0, ::10, :, 0, -1])

    def by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """AP and AP50 of each class, NaN where there is no object."""
        whole = self.precision[:, :, :, 0, -1]
        columns = range(len(self.classes))
        values = np.array([(_mean(whole[:, :, k]), _mean(whole[0, :, k])) for k in columns]).reshape(-1, 2)
        values[values < 0] = np.nan
        return values[:, 0], values[:, 1]


def with_sides(corners: np.ndarray) -> np.ndarray:
    """Boxes by left, top, width and height, of boxes by corners, (p, 4)."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).astype(float)


def _mean(precision: np.ndarray) -> float:
    present = precision[precision > -1]
    return float(present.mean()) if present.size else -1.0
