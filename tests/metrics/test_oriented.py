"""Overlap of oriented boxes against OpenCV, and their average precision against hotcoco."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from mmdyn.annotations import Annotations
from mmdyn.metrics import DatasetCocoMetric
from mmdyn.metrics.coco_evaluation import CocoEvaluation, Predicted
from mmdyn.metrics.oriented_iou import exact_iou, intersections
from mmdyn.models.oriented import corners_of, upright_of


def random_boxes(rng, count, size=100):
    low, high = [0, 0, 2, 2, -math.pi / 4], [size, size, 60, 60, 3 * math.pi / 4]
    return rng.uniform(low, high, (count, 5))


def by_opencv(one, other):
    """Area that two rectangles share, near their own centre, as OpenCV computes in float32."""
    corners = [corners_of(torch.from_numpy(box)).numpy() for box in (one, other)]
    return cv2.intersectConvexConvex(*((c - one[:2]).astype(np.float32) for c in corners))[0]


def test_exact_overlaps_are_those_of_opencv():
    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, 30), random_boxes(rng, 40)
    others[0], others[1] = boxes[0] + [0, 0, 0, 0, math.pi / 2], boxes[1] + [500, 0, 0, 0, 0]
    expected = np.array([[by_opencv(a, b) for b in others] for a in boxes])
    found = intersections(boxes, others)
    np.testing.assert_allclose(found, expected, atol=1e-2)  # of thousands of square pixels
    areas = boxes[:, None, 2:4].prod(2) + others[None, :, 2:4].prod(2) - expected
    np.testing.assert_allclose(exact_iou(boxes, others), expected / areas, atol=1e-6)
    assert not exact_iou(boxes * [1, 1, 1, 0, 1], others).any()
    assert exact_iou(boxes[:0], others).shape == (0, 40)


@pytest.mark.parametrize('apart', [0, 1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-3])
def test_boxes_that_are_almost_the_same_overlap_almost_all(apart):
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 300)
    overlaps = exact_iou(boxes, boxes + rng.normal(0, apart, boxes.shape)).diagonal()
    assert overlaps.min() > 1 - 100 * apart - 1e-9
    assert overlaps.max() < 1 + 1e-9


def scene(rng, images=12, crowds=0.1):
    """Objects of three classes, a few of them groups, and predictions of which some are near."""
    rows, turned = [], []
    for image in range(images):
        for box in random_boxes(rng, int(rng.integers(0, 8)), 300):
            rows.append((image, int(rng.integers(3)), bool(rng.random() < crowds)))
            turned.append(box)
    boxes = torch.from_numpy(np.array(turned))
    upright = upright_of(boxes).numpy()
    table = Annotations.of(
        files=[f'{i}.jpg' for i in range(images)],
        sizes=[(300, 300)] * images,
        images=[r[0] for r in rows],
        boxes=np.concatenate([upright[:, :2], upright[:, 2:] - upright[:, :2]], 1),
        labels=[r[1] for r in rows],
        crowd=[r[2] for r in rows],
        classes=['a', 'b', 'c'],
        outlines=list(corners_of(boxes).numpy()),
    )
    found = []
    for image in range(images):
        own = table.objects(image)
        near = boxes[own].numpy() + rng.normal(0, [2, 2, 3, 3, 0.1], (own.stop - own.start, 5))
        every = np.concatenate([near, random_boxes(rng, 3, 300)])
        labels = np.concatenate([table.labels[own], rng.integers(0, 3, 3)])
        corners = upright_of(torch.from_numpy(every)).numpy()
        scores = rng.uniform(0, 1, len(every)).round(3)
        found.append(Predicted(image, corners, scores, labels, oriented_boxes=every))
    return table, found


@pytest.mark.filterwarnings('ignore:hotcoco. oriented-box evaluation')
def test_average_precision_is_that_of_hotcoco(tmp_path):
    hotcoco = pytest.importorskip('hotcoco')
    table, found = scene(np.random.default_rng(1))
    evaluation = CocoEvaluation(table, found, iou_type='oriented')
    content = evaluation._truth()
    for each in content['annotations']:
        each['obb'] = each.pop('oriented')
    predictions = evaluation._found()
    for each in predictions:
        each['obb'] = each.pop('oriented')
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    truth = hotcoco.COCO(str(tmp_path / 'truth.json'))
    other = hotcoco.COCOeval(truth, truth.load_res(predictions), 'obb')
    other.evaluate(), other.accumulate(), other.summarize()
    figures = evaluation.figures()
    ours = [figures[name] for name in ('mAP', 'mAP_50', 'mAP_75')]
    np.testing.assert_allclose(ours, other.stats[:3], atol=1e-6)
    assert 0.1 < figures['mAP'] < figures['mAP_50'] < 1


def ap50_by_loops(table, found, label) -> float:
    """AP50 of a class by precision at eleven recalls, with plain loops; the scene has no groups."""
    free = {row: set(range(*table.objects(row).indices(len(table.boxes)))) for row in range(len(table))}
    turned = CocoEvaluation(table, [], iou_type='oriented').oriented_boxes
    rows = sorted(
        ((score, image.row, box) for image in found
         for score, box, own in zip(image.scores, image.oriented_boxes, image.labels, strict=True) if own == label),
        key=lambda row: -row[0],
    )  # fmt: skip
    hits = []
    for _, row, box in rows:
        rivals = [i for i in free[row] if table.labels[i] == label]
        overlaps = exact_iou(box[None], turned[rivals])[0] if rivals else np.zeros(0)
        hits.append(bool(len(overlaps)) and overlaps.max() >= 0.5)
        if hits[-1]:
            free[row].remove(rivals[overlaps.argmax()])
    objects = (table.labels == label).sum()
    recall, precision = np.cumsum(hits) / objects, np.cumsum(hits) / np.arange(1, len(hits) + 1)
    at = [precision[recall >= k / 10 - 1e-12].max(initial=0) for k in range(11)]
    return float(np.mean(at))


def test_ap50_of_eleven_recalls_is_that_of_plain_loops():
    table, found = scene(np.random.default_rng(3), crowds=0)
    ours = CocoEvaluation(table, found, iou_type='oriented')
    expected = np.mean([ap50_by_loops(table, found, label) for label in range(3)])
    assert ours.voc_ap50() == pytest.approx(expected, abs=1e-6)
    assert abs(ours.voc_ap50() - ours.figures()['mAP_50']) > 1e-4


def test_the_same_boxes_are_found_and_turned_ones_are_not():
    table, _ = scene(np.random.default_rng(2))
    turned = CocoEvaluation(table, [], iou_type='oriented').oriented_boxes
    for angle, expected in ((0, 1.0), (math.pi, 1.0), (math.pi / 2, 0.6)):
        found = []
        for row in range(len(table)):
            own = table.objects(row)
            boxes = turned[own] + [0, 0, 0, 0, angle]
            scores, labels = np.full(len(boxes), 0.9), table.labels[own]
            found.append(Predicted(row, np.zeros((len(boxes), 4)), scores, labels, oriented_boxes=boxes))
        ap = CocoEvaluation(table, found, iou_type='oriented').figures()['mAP_50']
        assert ap == pytest.approx(1) if expected == 1 else ap < expected


def test_overlap_by_prob_iou_is_another_figure():
    table, found = scene(np.random.default_rng(3))
    exact, prob = (
        CocoEvaluation(table, found, iou_type='oriented', overlap=overlap).figures()['mAP']
        for overlap in ('exact', 'prob')
    )
    assert exact != prob
    with pytest.raises(ValueError, match="overlap must be 'exact' or 'prob', got 'giou'"):
        DatasetCocoMetric(metric='oriented', overlap='giou')
