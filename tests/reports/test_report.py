"""The report of a run: its figures are COCO's, its page is whole, and a training and a test both write it."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from mmyolo.registry import METRICS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdyn.annotations import Annotations
from mmdyn.annotations.coco import load_coco
from mmdyn.datasets import CheckedCocoDataset
from mmdyn.inference.packaged import packaged
from mmdyn.metrics.coco_evaluation import CocoEvaluation, Predicted
from mmdyn.reports import make_report, write_report
from mmdyn.reports.report import epoch_rows, worst_images

SIGMAS = (0.25,) * 5


def made_up(table, seed=0) -> list[Predicted]:
    """Predictions near the objects, some of another class, and some anywhere."""
    rng = np.random.default_rng(seed)
    predictions = []
    for row in range(len(table)):
        own = table.objects(row)
        boxes = table.boxes[own] + rng.normal(0, 4, (own.stop - own.start, 4))
        anywhere = np.column_stack([rng.uniform(0, 200, (6, 2)), rng.uniform(5, 100, (6, 2))])
        boxes = np.concatenate([boxes, anywhere])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        labels = np.concatenate([table.labels[own], rng.integers(0, len(table.classes), 6)])
        changed = rng.random(len(labels)) < 0.2
        labels[changed] = rng.integers(0, len(table.classes), changed.sum())
        boxes[:, 2:] += boxes[:, :2]
        predictions.append(Predicted(row, boxes.astype(np.float32), rng.random(len(boxes)), labels))
    return predictions


@pytest.fixture(scope='module')
def evaluation(digits):
    table = load_coco(digits / 'annotations/train.json')
    return CocoEvaluation(table, made_up(table))


def with_more(table, image: Predicted) -> Predicted:
    """A prediction with an ellipse in every box as its mask, and five keypoints on its border and in its middle."""
    width, height = table.sizes[image.row].tolist()
    rows, columns = np.mgrid[:height, :width]
    masks = []
    for left, top, right, bottom in image.boxes.tolist():
        across, down = (columns - (left + right) / 2) / (right - left), (rows - (top + bottom) / 2) / (bottom - top)
        masks.append(coco_mask.encode(np.asfortranarray(across**2 + down**2 < 0.25, np.uint8)))
    places = np.array([[0.5, 0.05], [0.95, 0.5], [0.5, 0.95], [0.05, 0.5], [0.5, 0.5]])
    points = image.boxes[:, None, :2] + places * (image.boxes[:, None, 2:] - image.boxes[:, None, :2])
    return image._replace(masks=masks, keypoints=np.pad(points, ((0, 0), (0, 0), (0, 1)), constant_values=0.9))


@pytest.mark.parametrize('kind', ['bbox', 'segm', 'keypoints'])
def test_figures_and_classes_are_those_of_pycocotools(digits, capsys, kind):
    truth = COCO(str(digits / 'annotations/train.json'))
    table = load_coco(digits / 'annotations/train.json', kind == 'segm', kind == 'keypoints')
    predictions = [with_more(table, image) for image in made_up(table)]
    evaluation = CocoEvaluation(table, predictions, iou_type=kind, sigmas=SIGMAS)
    rows = [
        dict(
            image_id=table.image_id(image.row),
            category_id=table.class_ids[label],
            score=float(score),
            **dict(
                bbox=dict(bbox=[float(v) for v in (*box[:2], *(box[2:] - box[:2]))]),
                segm=dict(segmentation=mask),
                keypoints=dict(keypoints=points.ravel().tolist()),
            )[kind],
        )
        for image in evaluation.predictions
        for box, score, label, mask, points in zip(*image[1:6], strict=True)
    ]
    assert evaluation.figures()['mAP'] > 0.01
    reference = COCOeval(truth, truth.loadRes(rows), kind)
    reference.params.kpt_oks_sigmas = np.array(SIGMAS)
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    figures = [*evaluation.figures().values()]
    assert figures == pytest.approx(reference.stats[: len(figures)], abs=1e-9)
    assert len(figures) == (5 if kind == 'keypoints' else 6)
    ap, ap50 = evaluation.by_class()
    precision = reference.eval['precision'][..., 0, -1]
    for k in range(len(table.classes)):
        expected = [p[p > -1].mean() if (p > -1).any() else np.nan for p in (precision[..., k], precision[0, :, k])]
        assert [ap[k], ap50[k]] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_more_masks_than_eight_bits_count():
    """pycocotools fails here, see mmdyn.metrics.coco_evaluation."""
    mask = coco_mask.encode(np.ones((20, 20), np.uint8, order='F'))
    table = Annotations.of(
        files=['a'], sizes=[(20, 20)], images=[0], boxes=[(0, 0, 20, 20)], labels=[0], classes=['x'],
        outlines=[[(0, 0), (20, 0), (20, 20), (0, 20)]],
    )  # fmt: skip
    found = Predicted(0, np.tile([0, 0, 20, 20], (300, 1)), np.linspace(1, 0.1, 300), np.zeros(300, int), [mask] * 300)
    assert CocoEvaluation(table, [found], iou_type='segm').figures()['mAP'] == pytest.approx(1)
    with pytest.raises(OverflowError):
        coco_mask.area([mask] * 300)


def test_the_page_holds_everything_and_needs_nothing_else(evaluation, digits, tmp_path):
    report = make_report(evaluation, digits / 'train', {'network': 12.5})
    page = write_report(report, tmp_path)
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert text.count('<img') == 2 + 12
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['figures']['mAP'] == evaluation.figures()['mAP']
    assert [row['class'] for row in content['classes']] == ['all', *evaluation.classes]
    assert np.array(content['confusion']['counts']).shape == (11, 11)
    assert 'network 12.5' in report.table()
    assert report.table().splitlines()[1].split()[0] == 'all'
    assert len(report.table().splitlines()) == 1 + 11 + 2
    objects = sum(row['objects'] for row in content['classes'][1:])
    assert objects == content['classes'][0]['objects'] == len(evaluation.annotations.boxes)


@pytest.mark.parametrize('kind', ['segm', 'keypoints'])
def test_the_worst_images_show_masks_and_keypoints(digits, kind):
    table = load_coco(digits / 'annotations/train.json', kind == 'segm', kind == 'keypoints')
    predictions = [with_more(table, image) for image in made_up(table)]
    boxes = CocoEvaluation(table, predictions)
    other = CocoEvaluation(table, predictions, iou_type=kind, sigmas=SIGMAS)
    plain = {name: image for name, image, _ in worst_images(make_report(boxes, digits / 'train'), 2)}
    more = {name: image for name, image, _ in worst_images(make_report(boxes, digits / 'train', {}, other), 2)}
    assert len(more) == 2
    assert plain.keys() == more.keys()
    for name in more:
        changed = (more[name] != plain[name]).any(2)
        assert changed[:, :300].any()  # of the objects
        assert changed[:, 308:].any()  # of the predictions
        assert not changed[:, 300:308].any()


@pytest.mark.parametrize('kind', ['segm', 'keypoints'])
def test_images_without_a_prediction_have_a_picture(digits, kind):
    table = load_coco(digits / 'annotations/val.json', kind == 'segm', kind == 'keypoints')
    nothing = [Predicted(row, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)) for row in range(len(table))]
    other = CocoEvaluation(table, nothing, iou_type=kind, sigmas=SIGMAS)
    report = make_report(CocoEvaluation(table, nothing), digits / 'val', {}, other)
    assert [image.shape for _, image, _ in worst_images(report, 2)] == [(300, 608, 3)] * 2


def test_oriented_boxes_are_matched_by_their_areas_and_drawn(digits):
    table = load_coco(digits / 'annotations/train.json', corners=True)
    turned = CocoEvaluation(table, [], iou_type='oriented').oriented_boxes
    predictions = {}
    for angle in (0.0, 0.8):
        predictions[angle] = [
            Predicted(row, np.zeros((len(boxes), 4)), np.full(len(boxes), 0.9), table.labels[own], oriented_boxes=boxes)
            for row in range(len(table))
            for own in [table.objects(row)]
            for boxes in [turned[own] + [0, 0, 0, 0, angle]]
        ]
    right, wrong = (
        make_report(CocoEvaluation(table, found, iou_type='oriented'), digits / 'train')
        for found in predictions.values()
    )
    assert right.errors['correct'] == len(turned)
    assert not right.errors['missed']
    assert wrong.errors['correct'] < right.errors['correct']
    assert right.rows()[0]['AP'] == pytest.approx(1)
    pictures = worst_images(wrong, 2)
    assert [image.shape for _, image, _ in pictures] == [(300, 608, 3)] * 2
    assert all((image[:, :300] != image[:, 308:]).any() for _, image, _ in pictures)


def test_names_cannot_break_the_page(evaluation, tmp_path):
    from dataclasses import replace

    names = ('<script>alert(1)</script>', *evaluation.classes[1:])
    table = replace(evaluation.annotations, classes=names)
    text = write_report(make_report(CocoEvaluation(table, evaluation.predictions)), tmp_path).read_text()
    assert '<script>' not in text


def test_a_set_without_any_prediction_has_a_report(digits, tmp_path):
    table = load_coco(digits / 'annotations/val.json')
    nothing = [Predicted(row, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)) for row in range(len(table))]
    report = make_report(CocoEvaluation(table, nothing), digits / 'val')
    assert report.evaluation.figures()['mAP'] == 0
    assert report.errors['missed'] == len(table.boxes)
    assert write_report(report, tmp_path).is_file()


def metric(table, meta, **options):
    built = METRICS.build(dict(type='DatasetCocoMetric', metric='bbox', proposal_nums=(100, 1, 10), **options))
    built.dataset_meta = meta
    for image in made_up(table):
        found = dict(bboxes=image.boxes, scores=image.scores, labels=image.labels)
        prediction = {k: torch.from_numpy(v) for k, v in found.items()}
        built.process({}, [dict(pred_instances=prediction, img_id=table.image_id(image.row), ori_shape=(320, 320))])
    return built, built.evaluate(len(table))


def test_every_way_of_asking_gives_the_same_figures(digits, tmp_path):
    """The data set's annotations, a file, classes on their own, and predictions written as JSON."""
    dataset = CheckedCocoDataset(
        data_root=str(digits), ann_file='annotations/train.json', data_prefix=dict(img='train/')
    )
    meta = dict(dataset.metainfo)
    fast, expected = metric(dataset.annotations, meta)
    assert fast.evaluations
    slow, same = metric(dataset.annotations, meta, ann_file=str(digits / 'annotations/train.json'))
    assert not slow.evaluations
    assert same == expected
    _, more = metric(dataset.annotations, meta, classwise=True)
    assert more.items() > expected.items()
    _, written = metric(dataset.annotations, meta, outfile_prefix=str(tmp_path / 'mine'))
    assert written == expected
    assert len(json.loads((tmp_path / 'mine.bbox.json').read_text())) == sum(
        len(p.scores) for p in made_up(dataset.annotations)
    )


def test_a_training_by_iterations_has_no_epochs(tmp_path):
    folder = tmp_path / '20260101/vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"loss": 1.0, "iter": 3, "step": 3, "time": 0.1}\n')
    assert epoch_rows(tmp_path) == []


@pytest.mark.slow
def test_a_training_and_a_test_report(call, digits, tmp_path):
    common = ('--data', digits, '--work-dir', tmp_path, '--workers', 0)
    _, static = packaged('yolo11n_digits')
    done = call('tools/train.py', 'yolo11n_digits', '--weights', static, *common, '--epochs', 2, '--lr', 1e-6)
    assert done.returncode == 0, done.stderr
    assert re.search(r'^class +images +objects +AP +AP50 +precision +recall$', done.stdout, re.MULTILINE)
    (page,) = tmp_path.glob('*/report/report.html')
    rows = list(csv.DictReader((page.parent / 'results.csv').read_text().splitlines()))
    assert [row['epoch'] for row in rows] == ['1', '2']
    assert float(rows[-1]['coco/bbox_mAP']) > 0.2
    assert float(rows[0]['loss_cls']) > 0
    done = call('tools/test.py', '--weights', static, *common, '--imgsz', 320)
    assert done.returncode == 0, done.stderr
    assert re.search(r'ms an image: pre-process [\d.]+, network [\d.]+, post-process [\d.]+', done.stdout)
    assert len(list(tmp_path.glob('*/report/report.json'))) == 2
