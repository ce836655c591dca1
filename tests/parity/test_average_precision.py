"""Average precision: the same boxes scored by both, and the same checkpoint evaluated by both.

Both match boxes in the same way and read precision at the same 101 recalls. COCO takes the mean of the 101 values, the
original the trapezoidal integral, which counts the first and the last half: at an AP of 0.04 it is 0.001 lower, at 0.25
the same, at 0.5 0.0015 higher and at 0.83 0.0035 higher; a perfect detector gets 0.995 there.
"""

import json
import re

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import ap_per_class

import original
from mmdyn.annotations.coco import load_coco
from mmdyn.convert import convert_from_original
from mmdyn.metrics import DatasetCocoMetric
from mmdyn.metrics.coco_evaluation import CocoEvaluation, Predicted
from mmdyn.reports import make_report
from plates import make_plates

pytestmark = pytest.mark.parity

IMAGES, CLASSES, SIZE = 200, 3, 640


def scene(quality, seed=0):
    """Objects of many images, and what a detector of some quality makes of them: (labels, boxes), (…, scores)."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(IMAGES):
        count = rng.integers(8, 30)
        corner, side = rng.uniform(0, SIZE - 200, (count, 2)), rng.uniform(20, 200, (count, 2))
        boxes, labels = np.concatenate([corner, corner + side], 1), rng.integers(CLASSES, size=count)
        truth.append((labels, boxes))
        seen = rng.random(count) < 0.6 + 0.4 * quality
        moved = boxes + rng.normal(0, (1 - quality) * 0.25, boxes.shape) * np.tile(side, 2)
        noise = rng.integers(2, 20)
        corner, side = rng.uniform(0, SIZE - 200, (noise, 2)), rng.uniform(20, 200, (noise, 2))
        found.append(
            (
                np.concatenate([labels[seen], rng.integers(CLASSES, size=noise)]),
                np.concatenate([moved[seen], np.concatenate([corner, corner + side], 1)]),
                np.concatenate([rng.beta(4, 2, seen.sum()), rng.beta(1, 4 + 4 * quality, noise)]),
            )
        )
    return truth, found


def score_here(truth, found, folder):
    """Precision by IoU, recall and class of COCO's evaluator, and the report of the config's evaluator."""
    images = [dict(id=i, width=SIZE, height=SIZE, file_name=f'{i}.jpg') for i in range(IMAGES)]
    annotations = []
    for i, (labels, boxes) in enumerate(truth):
        for label, (x1, y1, x2, y2) in zip(labels.tolist(), boxes.tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(dict(image_id=i, category_id=label, bbox=box, area=box[2] * box[3], iscrowd=0))
    for number, annotation in enumerate(annotations, 1):
        annotation['id'] = number
    file = folder / 'truth.json'
    categories = [dict(id=i, name=str(i)) for i in range(CLASSES)]
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    metric = DatasetCocoMetric(metric='bbox', proposal_nums=(100, 1, 10))
    metric.dataset_meta = dict(classes=[str(i) for i in range(CLASSES)], ann_file=str(file))
    results = []
    for i, (labels, boxes, scores) in enumerate(found):
        instances = InstanceData(labels=torch.tensor(labels), bboxes=torch.tensor(boxes), scores=torch.tensor(scores))
        metric.process({}, [dict(pred_instances=instances, img_id=i, ori_shape=(SIZE, SIZE))])
        for label, (x1, y1, x2, y2), score in zip(labels.tolist(), boxes.tolist(), scores.tolist()):
            results.append(dict(image_id=i, category_id=label, bbox=[x1, y1, x2 - x1, y2 - y1], score=score))
    truth_here = COCO(str(file))
    evaluation = COCOeval(truth_here, truth_here.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # (IoU, recall, class), all sizes, 100 boxes
    assert metric.evaluate(IMAGES)['coco/bbox_mAP'] == round(precision.mean(), 3)  # the same, with its decimals
    predictions = [Predicted(i, boxes, scores, labels) for i, (labels, boxes, scores) in enumerate(found)]
    return precision, make_report(CocoEvaluation(load_coco(file), predictions))


def score_there(truth, found):
    """AP of the original's evaluator, and precision and recall by class at its best F1."""
    validator = DetectionValidator(args=dict(model='yolo11n.pt'))
    statistics = []
    for (labels, boxes), (found_labels, found_boxes, scores) in zip(truth, found, strict=True):
        order = np.argsort(-scores, kind='stable')
        predictions = dict(bboxes=torch.tensor(found_boxes[order]), cls=torch.tensor(found_labels[order]))
        targets = dict(bboxes=torch.tensor(boxes), cls=torch.tensor(labels))
        hits = validator._process_batch(predictions, targets)['tp']
        statistics.append((hits, scores[order], found_labels[order], labels))
    figures = ap_per_class(*(np.concatenate(part) for part in zip(*statistics, strict=True)))
    return figures[5].mean(), figures[2], figures[3]


@pytest.mark.parametrize('quality', [0.1, 0.3, 0.5, 0.6, 0.7, 0.9])
def test_same_boxes(quality, tmp_path):
    truth, found = scene(quality)
    precision, report = score_here(truth, found, tmp_path)
    there, *there_at_best = score_there(truth, found)
    integral = np.trapezoid(precision, np.linspace(0, 1, 101), axis=1).mean()
    assert there == pytest.approx(integral, abs=1e-4)
    here = precision.mean()
    assert here > 0.03
    assert there == pytest.approx(here, abs=2e-3 if here < 0.6 else 5e-3)
    for name, expected in zip(('precision', 'recall'), there_at_best, strict=True):
        np.testing.assert_allclose([row[name] for row in report.rows()[1:]], expected, atol=0.005)


@pytest.fixture(scope='module')
def plates(tmp_path_factory):
    """Files and folders of images of ``make_plates``, by split."""
    root = make_plates(tmp_path_factory.mktemp('plates'), dict(train=160, val=240))
    return {split: (root / f'{split}.json', root / split) for split in ('train', 'val')}


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['static', 'dynconv'])
def test_trained_checkpoint(variant, plates, tmp_path, run):
    """A checkpoint of the original, trained there: what `tools/test.py` says of it is what the original says."""
    data = original.yolo_dataset(tmp_path / 'set', plates)
    recipe = dict(imgsz=160, epochs=10, batch=8, optimizer='AdamW', lr0=0.002, warmup_epochs=1, warmup_bias_lr=0.0)
    original.train(data, tmp_path / 'run', variant, hsv_h=0, mosaic=0, nbs=8, val=False, **recipe)
    checkpoint = tmp_path / 'run/weights/last.pt'
    there = original.validate(checkpoint, data, tmp_path / 'val', imgsz=160, batch=16, rect=True)

    conversion = convert_from_original(checkpoint, tmp_path / 'converted.pth')
    assert conversion.classes == ('r', 'g', 'b')
    cfg = conversion.variant.load_config()
    file, images = plates['val']
    dataset = cfg.test_dataloader.dataset
    dataset.update(data_root='', ann_file=str(file), data_prefix=dict(img=str(images)))
    # rectangles by batch, as the original has them
    dataset.batch_shapes_cfg = dict(cfg.rectangles, type='BatchShapePolicy', img_size=160)
    for step in dataset.pipeline:
        if 'scale' in step:
            step.scale = (160, 160)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False, batch_sampler=None)
    cfg.model.test_cfg.clip_boxes = False
    cfg.dump(tmp_path / 'config.py')
    tested = run('tools/test.py', tmp_path / 'config.py', tmp_path / 'converted.pth', '--work-dir', tmp_path)
    assert tested.returncode == 0, tested.stderr
    [report] = tmp_path.glob('*/report/report.json')
    here = json.loads(report.read_text())['classes'][0]  # of all classes
    print(variant, here, there)
    assert there['metrics/mAP50-95(B)'] > 0.1
    assert here['AP'] == pytest.approx(there['metrics/mAP50-95(B)'], abs=0.002)
    assert here['precision'] == pytest.approx(there['metrics/precision(B)'], abs=0.005)
    assert here['recall'] == pytest.approx(there['metrics/recall(B)'], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['segment', 'pose', 'obb'])
def test_trained_checkpoint_of_a_task(task, plates, tmp_path, run):
    """A checkpoint of the original, trained there: one evaluator scores what both find, in pixels of the image."""
    data = original.yolo_dataset(tmp_path / 'set', plates, task)
    recipe = dict(imgsz=160, epochs=10, batch=8, optimizer='AdamW', lr0=0.002, warmup_epochs=1, warmup_bias_lr=0.0)
    original.train(data, tmp_path / 'run', task=task, hsv_h=0, mosaic=0, nbs=8, val=False, fliplr=0, **recipe)
    checkpoint = tmp_path / 'run/weights/last.pt'
    original.validate(checkpoint, data, tmp_path / 'val', task, imgsz=160, batch=16, rect=False)
    file, images = plates['val']
    results = json.loads((tmp_path / 'val/predictions.json').read_text())
    for result in results:
        result['category_id'] -= 1
    kind = dict(segment='segm', pose='keypoints', obb='oriented')[task]
    ap, ap50 = (oriented_ap if task == 'obb' else coco_ap)(file, results, kind)

    convert_from_original(checkpoint, tmp_path / 'converted.pth')
    options = ('--work-dir', tmp_path, '--imgsz', 160, '--workers', 0, '--cfg-options')
    options += (f'test_dataloader.dataset.ann_file={file}', f'test_dataloader.dataset.data_prefix.img={images}/')
    options += ('model.bbox_head.head_module.num_classes=3', 'test_dataloader.dataset.batch_shapes_cfg=None')
    tested = run('tools/test.py', f'{task}/yolo11n_digits', tmp_path / 'converted.pth', *options)
    assert tested.returncode == 0, tested.stderr
    found = dict(re.findall(r'coco/(\w+): +(\S+)', tested.stdout))
    print(task, found, ap, ap50)
    assert ap > 0.1
    assert float(found[f'{kind}_mAP']) == pytest.approx(ap, abs=0.002)
    assert float(found[f'{kind}_mAP_50']) == pytest.approx(ap50, abs=0.004)


def coco_ap(file, results, kind):
    """AP and AP50 of pycocotools."""
    truth = COCO(str(file))
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    if kind == 'keypoints':
        evaluation.params.kpt_oks_sigmas = np.full(5, 0.05)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:2]


def oriented_ap(file, results, kind):
    """AP and AP50 of mmdyn's evaluator, as pycocotools has none."""
    table = load_coco(file, corners=True)
    predictions = []
    for row in range(len(table)):
        own = [r for r in results if r['image_id'] == table.image_id(row)]
        boxes = np.array([r['rbox'] for r in own]).reshape(-1, 5)
        scores, labels = np.array([r['score'] for r in own]), np.array([r['category_id'] for r in own], int)
        predictions.append(Predicted(row, np.zeros((len(own), 4)), scores, labels, oriented_boxes=boxes))
    figures = CocoEvaluation(table, predictions, iou_type=kind).figures()
    return figures['mAP'], figures['mAP_50']
