"""Every task through every tool, from one short training each; README and docs/models.md show this as a table.

A number of each cell is held to something independent: AP to the metric's own library, outputs to those of PyTorch.
"""

import copy
import json
import pickle
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conftest import ROOT
from mmdyn.convert import convert_from_original, convert_to_original
from mmdyn.export.agreement import examples
from mmdyn.export.export import export_detector
from mmdyn.export.graph import plain_graph
from mmdyn.export.options import ExportOptions
from mmdyn.inference.runtimes import open_exported
from mmdyn.layers import dynamic_layers
from mmdyn.running import load_checkpoint_model, load_config
from mmdyn.running.image_size import test_size as size_of
from mmdyn.surgery.collapse import collapse_checkpoint
from mmdyn.surgery.upcycle import output_difference, upcycle_checkpoint
from mmdyn.tasks import TASKS
from plates import make_plate_folders, make_plates

MARKS = {name: [pytest.mark.xdist_group(name)] for name in ('detect', 'segment', 'pose', 'obb', 'classify')}
MARKS['classify'] += [pytest.mark.skipif(find_spec('mmpretrain') is None, reason='needs requirements/classify.txt')]
EVERY = pytest.mark.parametrize('task', [pytest.param(name, marks=marks) for name, marks in MARKS.items()])
FLOORS = dict(detect=0.3, segment=0.3, pose=0.1, obb=0.3, classify=0.9)  # of AP, or accuracy
SIDE = 160  # pixels of the plates
EPOCHS = 6
KEPT = 0.05  # score above which detections are compared; of thousands of weaker ones NMS may keep one more by rounding
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings('ignore:::(?!mmdyn)', 'ignore::DeprecationWarning'),
]


class Trained(NamedTuple):
    """A short training of a dynamic model."""

    task: str
    cfg: Config  # with the data
    config: Path
    checkpoint: Path
    static: Path  # of the static counterpart: its checkpoint, beside its config
    work_dir: Path
    data: Path


@pytest.fixture(scope='module')
def learn(run, tmp_path_factory):
    """Train a task, once for all tests."""
    made: dict[str, Trained] = {}

    def train(task: str) -> Trained:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            make = make_plate_folders if task == 'classify' else make_plates
            data, config = make(folder / 'data', dict(train=160, val=40)), config_of(task)
            options = ['--imgsz', 64 if task == 'classify' else SIDE, *recipe(data)]
            done = run('tools/train.py', config, '--work-dir', folder / 'run', '--epochs', EPOCHS, *options)
            assert done.returncode == 0, done.stderr[-3000:]
            written = folder / f'run/{Path(config).name}.py'
            cfg = load_config(written)
            cfg.work_dir, cfg.launcher = str(folder / 'evaluation'), 'none'
            checkpoint, static = folder / f'run/epoch_{EPOCHS}.pth', folder / 'static.pth'
            collapse_checkpoint(cfg, checkpoint, static, number=16)
            made[task] = Trained(task, cfg, written, checkpoint, static, folder / 'run', data)
        return made[task]

    return train


def config_of(task: str, variant: str = '_dynconv-bn') -> str:
    return f'{task}/yolo11n{variant}_digits'.removeprefix('detect/')


def recipe(data: Path) -> list:
    loaders = [f'{name}_dataloader.persistent_workers=False' for name in ('train', 'val', 'test')]
    return ['--data', data, '--batch', 8, '--workers', 0, '--cfg-options', *loaders, 'randomness.seed=0']


def last_score(trained: Trained) -> float:
    """The score of the last validation in the log."""
    key = next(iter(TASKS[trained.task].metrics.values()))
    [log] = trained.work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line)[key] for line in log.read_text().splitlines() if f'"{key}"' in line][-1]


@pytest.fixture(scope='module')
def tested(run, learn, tmp_path_factory):
    """What `mmdyn test` printed for a task, and what it found, by name of the image."""
    made = {}

    def test(task: str) -> tuple[dict[str, float], dict[str, dict]]:
        if task not in made:
            trained, folder = learn(task), tmp_path_factory.mktemp('tested')
            command = ['tools/test.py', trained.config, trained.checkpoint, '--out', folder / 'found.pkl']
            if task != 'classify':  # images padded to squares, as in detect
                command += ['--cfg-options', 'test_dataloader.dataset.batch_shapes_cfg=None']
            done = run(*command, '--work-dir', folder)
            assert done.returncode == 0, done.stderr[-3000:]
            figures = {k: float(v) for k, v in re.findall(r'((?:coco|accuracy)/\w+): +([\d.]+)', done.stdout)}
            rows = pickle.loads((folder / 'found.pkl').read_bytes())
            made[task] = figures, {Path(row['img_path']).name: row for row in rows}
        return made[task]

    return test


@EVERY
def test_training_learns(learn, task):
    assert last_score(learn(task)) > FLOORS[task]


@EVERY
def test_the_score_of_a_test_is_that_of_the_library_of_the_metric(learn, tested, task):
    figures, found = tested(task)
    expected = LIBRARIES[task](learn(task), found)
    keys = [*TASKS[task].metrics.values()][: len(expected)]
    assert [figures[key] for key in keys] == pytest.approx(expected, abs=6e-4)  # AP is rounded to three digits
    assert expected[0] > FLOORS[task]


def by_pycocotools(trained: Trained, found: dict) -> list[float]:
    """AP and AP50 of boxes, masks or keypoints."""
    kind = dict(detect='bbox', segment='segm', pose='keypoints')[trained.task]
    truth = COCO(str(trained.data / 'val.json'))
    numbers = {image['file_name']: image['id'] for image in truth.imgs.values()}
    rows = []
    for name, row in found.items():
        instances = row['pred_instances']
        for i, (x1, y1, x2, y2) in enumerate(instances['bboxes'].tolist()):
            one = dict(image_id=numbers[name], category_id=int(instances['labels'][i]), bbox=[x1, y1, x2 - x1, y2 - y1])
            one['score'] = float(instances['scores'][i])
            if kind == 'segm':
                one['segmentation'] = instances['masks'][i]
                if not isinstance(one['segmentation'], dict):
                    one['segmentation'] = coco_mask.encode(np.asfortranarray(one['segmentation'], np.uint8))
                one.pop('bbox')
            elif kind == 'keypoints':
                points = [instances['keypoints'][i], instances['keypoint_scores'][i][:, None]]
                one['keypoints'] = np.concatenate(points, 1).ravel().tolist()
            rows.append(one)
    evaluation = COCOeval(truth, truth.loadRes(rows), kind)
    if kind == 'keypoints':
        evaluation.params.kpt_oks_sigmas = np.full(5, 1 / 5)
    else:
        evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return evaluation.stats[:2].tolist()


def by_hotcoco(trained: Trained, found: dict) -> list[float]:
    """AP and AP50 of oriented boxes; the plates are upright."""
    hotcoco = pytest.importorskip('hotcoco')
    content = json.loads((trained.data / 'val.json').read_text())
    for each in content['annotations']:
        x, y, w, h = each['bbox']
        each['obb'] = [x + w / 2, y + h / 2, w, h, 0.0]
    file = trained.data / 'turned.json'
    file.write_text(json.dumps(content))
    numbers = {image['file_name']: image['id'] for image in content['images']}
    rows = []
    for name, row in found.items():
        parts = (row['pred_instances'][key].tolist() for key in ('bboxes', 'oriented_boxes', 'scores', 'labels'))
        for (x1, y1, x2, y2), turned, score, label in zip(*parts, strict=True):
            box = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=turned[2] * turned[3])
            rows.append(dict(image_id=numbers[name], category_id=label, obb=turned, score=score, **box))
    truth = hotcoco.COCO(str(file))
    evaluation = hotcoco.COCOeval(truth, truth.load_res(rows), 'obb')
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return [*evaluation.stats[:2]]


def by_scikit_learn(trained: Trained, found: dict) -> list[float]:
    """Accuracy of the best class."""
    from sklearn.metrics import top_k_accuracy_score

    scores = np.array([row['pred_score'].numpy() for row in found.values()])
    labels = [int(row['gt_label']) for row in found.values()]
    return [float(top_k_accuracy_score(labels, scores, k=1, labels=range(3)))]


LIBRARIES = dict.fromkeys(('detect', 'segment', 'pose'), by_pycocotools) | dict(
    obb=by_hotcoco, classify=by_scikit_learn
)


@EVERY
def test_conversion_and_back_is_equal_to_the_bit(learn, task, tmp_path):
    static = learn(task).static
    convert_to_original(static, tmp_path / 'there.safetensors')
    convert_from_original(tmp_path / 'there.safetensors', tmp_path / 'back.pth')
    before, after = (torch.load(p, weights_only=True)['state_dict'] for p in (static, tmp_path / 'back.pth'))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@EVERY
def test_upcycling_keeps_the_outputs(learn, task, tmp_path):
    trained = learn(task)
    done = upcycle_checkpoint(trained.static, trained.cfg, tmp_path / 'dynamic.pth')
    assert done.new == done.left == ()
    dynamic = load_checkpoint_model(trained.cfg, tmp_path / 'dynamic.pth').model
    static = load_checkpoint_model(load_config(trained.static.with_suffix('.py')), trained.static).model
    assert output_difference(dynamic, static) <= 1e-5


@EVERY
def test_collapse_is_exact_at_constant_routing(learn, task, tmp_path):
    trained = learn(task)
    done = collapse_checkpoint(trained.cfg, trained.checkpoint, tmp_path / 'static.pth', number=16)
    frozen = copy.deepcopy(load_checkpoint_model(trained.cfg, trained.checkpoint).model)
    for layer, report in zip(dynamic_layers(frozen).values(), done.layers, strict=True):
        torch.nn.init.zeros_(layer.router.weight)
        layer.router.bias.data = torch.logit(report.mean)
    static = load_checkpoint_model(load_config(tmp_path / 'static.py'), tmp_path / 'static.pth').model
    assert output_difference(frozen, static) < 1e-4


@pytest.fixture(scope='module')
def exported(learn, tmp_path_factory):
    made = {}

    def export(task: str) -> Path:
        if task not in made:
            trained, file = learn(task), tmp_path_factory.mktemp('exported') / 'model.onnx'
            made[task] = export_detector(trained.cfg, trained.checkpoint, file, ExportOptions()).path
        return made[task]

    return export


@EVERY
def test_an_export_has_the_outputs_of_pytorch_at_two_batch_sizes(learn, exported, task):
    trained = learn(task)
    model = load_checkpoint_model(trained.cfg, trained.checkpoint).model
    images = examples(model, size_of(trained.cfg), 3)
    with torch.no_grad():
        expected = plain_graph(model)(images)
    session = open_exported(exported(task))
    for batch in (1, 3):
        for found, wanted in zip(session.run(images[:batch].numpy()), expected, strict=True):
            difference = np.abs(found - wanted[:batch].numpy()).max()
            assert difference <= 1e-4 * max(1, float(wanted.abs().max()))


@EVERY
def test_detect_writes_what_a_test_finds(learn, tested, call, task, tmp_path):
    trained, (_, found) = learn(task), tested(task)
    options = [] if task == 'classify' else ['--conf', KEPT]
    images = trained.data / ('val/r' if task == 'classify' else 'val')
    done = call('demo/image_demo.py', images, trained.config, trained.checkpoint, '--out-dir', tmp_path, *options)
    assert done.returncode == 0, done.stderr
    names = [file.name for file in images.iterdir()]
    compared = 0
    for name in names:
        rows = json.loads((tmp_path / 'preds' / f'{Path(name).stem}.json').read_text())
        if task == 'classify':
            best = found[name]['pred_score'].topk(3)
            assert rows['labels'] == best.indices.tolist()
            np.testing.assert_allclose(rows['scores'], best.values, atol=1e-5)
            compared += 1
            continue
        wanted = found[name]['pred_instances']
        kept = wanted['scores'] > KEPT
        np.testing.assert_allclose(rows['scores'], wanted['scores'][kept], atol=1e-5)
        assert rows['labels'] == wanted['labels'][kept].tolist()
        np.testing.assert_allclose(np.reshape(rows['bboxes'], (-1, 4)), wanted['bboxes'][kept], atol=0.02)
        if task == 'obb':
            turned = np.reshape(rows['oriented_boxes'], (-1, 5))
            np.testing.assert_allclose(turned, wanted['oriented_boxes'][kept], atol=0.02)
        elif task == 'pose':
            points = np.reshape(rows['keypoints'], (-1, 5, 3))
            np.testing.assert_allclose(points[..., :2], wanted['keypoints'][kept], atol=0.02)
        elif task == 'segment':
            masks = [each for each, keep in zip(wanted['masks'], kept, strict=True) if keep]
            assert [coco_mask.decode(each).sum() for each in rows['masks']] == [
                coco_mask.decode(each).sum() if isinstance(each, dict) else each.sum() for each in masks
            ]
        compared += len(rows['scores'])
    assert compared > 12


@EVERY
def test_a_comparison_is_in_the_metric_of_the_task(learn, run, task, tmp_path):
    trained = learn(task)
    arms = [config_of(task, variant) for variant in ('', '_dynconv')]
    size = ['--imgsz', 64 if task == 'classify' else 96]
    command = ['tools/ablate.py', *arms, '--seeds', 1, '--jobs', 2, '--latency-rounds', 0, '--work-dir', tmp_path]
    done = run(*command, '--epochs', 1, *size, *recipe(trained.data), 'train_dataloader.dataset.indices=32')
    assert done.returncode == 0, done.stderr[-3000:]
    report = (tmp_path / 'report.md').read_text()
    key, heading = (next(iter(each)) for each in (TASKS[task].metrics.values(), TASKS[task].metrics))
    assert f'| config | {heading} |' in report
    meaning = {'classify': 'top-1 is the share of images whose best class is right'}
    assert meaning.get(task, f'AP is COCO AP of {TASKS[task].parts} ') in report
    for arm in arms:
        name = Path(arm).name
        [log] = (tmp_path / name / 'seed_0').glob('*/vis_data/scalars.json')
        [score] = [json.loads(line)[key] for line in log.read_text().splitlines() if f'"{key}"' in line]
        assert f'| {name} | {score:.3f} |' in report


CELLS = dict(
    train=test_training_learns,
    test=test_the_score_of_a_test_is_that_of_the_library_of_the_metric,
    convert=test_conversion_and_back_is_equal_to_the_bit,
    upcycle=test_upcycling_keeps_the_outputs,
    collapse=test_collapse_is_exact_at_constant_routing,
    export=test_an_export_has_the_outputs_of_pytorch_at_two_batch_sizes,
    detect=test_detect_writes_what_a_test_finds,
    ablate=test_a_comparison_is_in_the_metric_of_the_task,
)


@pytest.mark.parametrize('page', ['README.md', 'docs/models.md'])
def test_the_table_shows_these_tests(page):
    text = (ROOT / page).read_text()
    assert f'| task | {" | ".join(CELLS)} |' in text
    for name, task in TASKS.items():
        tested = [name in MARKS and EVERY.mark in test.pytestmark for test in CELLS.values()]
        assert f'| {task.title} | {" | ".join("✓" if each else "–" for each in tested)} |' in text
