"""Exported files of the tasks: equal to PyTorch, from the outputs to what is found in an image."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmdyn
from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.export.agreement import examples
from mmdyn.export.export import export_detector
from mmdyn.export.graph import DetectionGraph
from mmdyn.export.options import ExportOptions
from mmdyn.inference.evaluation import evaluate
from mmdyn.inference.exported_detector import use_exported
from mmdyn.inference.onnx_detector import captions, corners_of, draw, output_names
from mmdyn.inference.prediction import run_length
from mmdyn.inference.runtimes import open_exported
from mmdyn.running import load_checkpoint_model
from mmdyn.tasks import TASKS as TASK_OF

pytest.importorskip('onnxscript', reason='needs requirements/deploy.txt')
pytestmark = [
    pytest.mark.filterwarnings('ignore:::(?!mmdyn)', 'ignore::DeprecationWarning'),
    pytest.mark.xdist_group('exported tasks'),  # they are made once
]
TASKS = ('segment', 'pose', 'obb')
SUFFIX = {'onnx': '.onnx', 'openvino': '.xml', 'ncnn': '.param'}
FORMS = [
    ('segment', dict()),
    ('segment', dict(nms=True, masks=True)),
    ('segment', dict(format='openvino', nms=True)),
    ('pose', dict()),
    ('pose', dict(format='openvino', nms=True, batch=2)),
    ('obb', dict(nms=True)),
    ('obb', dict(format='openvino', nms=True, batch=2)),
]


@pytest.fixture(scope='module')
def model_of(alike, digits):
    """Config and checkpoint by task."""
    options = {f'{name}_dataloader.dataset.data_root': str(digits) for name in ('train', 'val', 'test')}
    options |= {f'{name}_dataloader.num_workers': 0 for name in ('val', 'test')}
    options |= {f'{name}_dataloader.persistent_workers': False for name in ('val', 'test')}
    # scores of an untaught detector are low
    options |= {'model.test_cfg.score_thr': 1e-4, 'model.test_cfg.max_per_img': 20}
    return lambda task: alike(f'{task}/yolo11n_digits.py', **options)


@pytest.fixture(scope='module')
def files(model_of, tmp_path_factory):
    """Exported files by task and options, made when first asked for."""
    folder, made = tmp_path_factory.mktemp('exported'), {}

    def export(task, **options):
        key = (task, *sorted(options.items()))
        if key not in made:
            target = folder / f'{len(made)}{SUFFIX[options.get("format", "onnx")]}'
            made[key] = export_detector(*model_of(task), target, ExportOptions(**options))
        return made[key]

    return export


@pytest.mark.parametrize('task', TASKS)
def test_every_output_is_that_of_pytorch_in_every_batch(files, model_of, task):
    model = load_checkpoint_model(*model_of(task)).model
    graph = DetectionGraph(model)
    images = examples(model, (320, 320), 5)
    with torch.no_grad():
        expected = graph(images)
    session = open_exported(files(task).path)
    assert tuple(session.outputs) == graph.names
    for batch in (1, 2, 5):
        found = session.run(images[:batch].numpy())
        for name, one, other in zip(graph.names, found, expected, strict=True):
            largest = float(other.abs().max())
            np.testing.assert_allclose(one, other[:batch], atol=1e-5 * largest, rtol=0, err_msg=name)


@pytest.mark.parametrize(('task', 'options'), FORMS, ids=str)
def test_what_a_task_has_is_that_of_the_checkpoint(files, model_of, task, options):
    cfg, checkpoint = model_of(task)
    there, here = mmdyn.load_model(cfg, checkpoint, device='cpu'), mmdyn.load_model(files(task, **options).path)
    numbers = 0
    for height, width in ((240, 320), (427, 640), (333, 100), (64, 50)):  # paddings of every remainder of four
        image = np.random.default_rng(height).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        image = cv2.resize(image, (width, height))
        wanted, found = there(image, 1e-3).pred_instances, here(image, 1e-3).pred_instances
        assert len(wanted) == len(found)
        numbers += len(found)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
        apart = np.abs(np.diff(wanted.scores.numpy())) > 1e-5  # equal scores may change places
        same = np.append(apart, True) & np.insert(apart, 0, True)
        np.testing.assert_allclose(found.bboxes[same], wanted.bboxes[same], atol=0.05)
        if task == 'segment':
            assert found.masks.shape == wanted.masks.shape == (len(found), height, width)
            different = (found.masks != wanted.masks)[same].sum()
            assert different <= 1e-3 * max(int(wanted.masks[same].sum()), 1)
            assert wanted.masks.any()
        elif task == 'obb':
            np.testing.assert_allclose(found.oriented_boxes[same], wanted.oriented_boxes[same], atol=0.05)
        else:
            np.testing.assert_allclose(found.keypoints[same], wanted.keypoints[same], atol=0.05)
            np.testing.assert_allclose(found.keypoint_scores[same], wanted.keypoint_scores[same], atol=1e-5)
    assert numbers > 10
    assert here.detector.meta['task'] == task


@pytest.fixture(scope='module')
def scored(model_of, digits, tmp_path_factory):
    """By task, a config whose ground truth is part of what the checkpoint finds, so that its AP is high; and its AP."""
    made = {}

    def score(task):
        if task not in made:
            made[task] = compare(task, tmp_path_factory.mktemp(task))
        return made[task]

    def compare(task, folder):
        cfg, checkpoint = model_of(task)
        model = mmdyn.load_model(cfg, checkpoint, device='cpu')
        content = json.loads((digits / 'annotations/val.json').read_text())
        content['annotations'] = []
        for number, image in enumerate(content['images']):
            height, width = ((320, 320), (230, 320), (320, 170))[number % 3]
            pixels = cv2.imread(str(digits / 'val' / image['file_name']))[:height, :width]
            cv2.imwrite(str(folder / image['file_name']), pixels)
            image.update(width=width, height=height)
            for found in model(folder / image['file_name'], 1e-4).pred_instances[::3]:
                left, top, right, bottom = found.bboxes[0].tolist()
                box = [left, top, right - left, bottom - top]
                row = dict(id=len(content['annotations']) + 1, image_id=image['id'], category_id=int(found.labels[0]))
                row |= dict(bbox=box, area=box[2] * box[3], iscrowd=0)
                if task == 'segment':
                    row['segmentation'] = run_length(found.masks[0].numpy())
                elif task == 'obb':
                    row['segmentation'] = [corners_of(found.oriented_boxes[:1].numpy()).ravel().tolist()]
                else:
                    points = np.concatenate([found.keypoints[0].numpy(), np.full((5, 1), 2)], 1)
                    row |= dict(keypoints=points.astype(float).ravel().tolist(), num_keypoints=5)
                if box[2] * box[3] > 16 and not (task == 'segment' and not found.masks.any()):
                    content['annotations'].append(row)
        truth = folder / 'truth.json'
        truth.write_text(json.dumps(content))
        cfg = Config(cfg.to_dict())
        cfg.test_dataloader.dataset.update(ann_file=str(truth), data_prefix=dict(img=f'{folder}/'))
        cfg.work_dir, cfg.launcher = str(folder), 'none'
        return cfg, evaluate(cfg, checkpoint, square=True)

    return score


@pytest.mark.parametrize(('task', 'options'), FORMS, ids=str)
def test_average_precision_is_that_of_the_checkpoint(files, scored, task, options):
    cfg, expected = scored(task)
    found = evaluate(cfg, files(task, **options).path)
    metric = next(iter(TASK_OF[task].metrics.values()))
    assert expected[metric] > 0.2
    for name in (metric, *({'coco/bbox_mAP'} & expected.keys())):
        assert found[name] == pytest.approx(expected[name], abs=0.002)


WITHOUT_PYTORCH = """
import runpy, sys
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmyolo', 'mmdyn', 'timm'):
    sys.modules[name] = None
sys.argv = ['onnx_detector.py', *sys.argv[1:]]
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


ONE_FILE = [('segment', dict(nms=True, masks=True)), ('pose', dict()), ('obb', dict(nms=True))]


@pytest.mark.parametrize(('task', 'options'), ONE_FILE, ids=str)
def test_the_one_file_draws_masks_and_keypoints(run, files, tmp_path, digits, task, options):
    image = tmp_path / 'image.png'
    image.write_bytes(sorted((digits / 'val').iterdir())[0].read_bytes())
    script = ROOT / 'mmdyn/inference/onnx_detector.py'
    done = run('-c', WITHOUT_PYTORCH, script, files(task, **options).path, image, '--score', '0.001')
    assert done.returncode == 0, done.stderr
    drawn = cv2.imread(str(tmp_path / 'image.detected.jpg'))
    detector = open_exported(files(task, **options).path)
    found = detector(cv2.imread(str(image)), 0.001)
    assert len(found.boxes)
    before = cv2.imread(str(image)).astype(int)
    if task == 'segment':
        inside = found.masks.any(0)
        change = np.abs(drawn - before)
        assert change[inside].mean() > 20 + change[~inside].mean()
    elif task == 'obb':
        corners = corners_of(found.oriented_boxes)
        middles = ((corners + np.roll(corners, 1, 1)) / 2).reshape(-1, 2).round().astype(int)
        middles = middles[((middles >= 2) & (middles < 318)).all(1)]
        assert len(middles) > 10
        assert np.abs(drawn - before)[middles[:, 1], middles[:, 0]].mean() > 20
    else:
        assert detector.skeleton == [[5, 1], [5, 2], [5, 3], [5, 4]]
        boxes = draw(before, found._replace(keypoints=None), captions(found, detector.names))
        points = found.keypoints[found.keypoint_scores > 0.5].clip(0, 319).astype(int)
        assert len(points)
        assert np.abs(drawn.astype(int) - boxes)[points[:, 1], points[:, 0]].mean() > 20


def test_the_skeleton_goes_with_the_checkpoint(model_of):
    model = mmdyn.load_model(*model_of('pose'), device='cpu')
    [prediction] = model([np.full((64, 64, 3), 90, np.uint8)], 1e-4)
    assert prediction.skeleton == ((5, 1), (5, 2), (5, 3), (5, 4))


@pytest.mark.parametrize('task', TASKS[:2])
def test_half_precision_with_nms(files, task):
    done = files(task, half=True, nms=True, batch=2)
    assert 0 < done.scores < 0.05


@pytest.mark.parametrize('task', TASKS)
def test_ncnn(files, model_of, task):
    pytest.importorskip('pnnx')
    done = files(task, format='ncnn', batch=1)
    assert done.boxes < 0.01
    assert done.masks < 1e-4


def test_the_number_of_keypoints_is_checked(files, model_of, scored):
    cfg, _ = scored('pose')
    other = Config(cfg.to_dict())
    content = json.loads(Path(cfg.test_dataloader.dataset.ann_file).read_text())
    for row in (*content['annotations'], *content['categories']):
        row['keypoints'] = row['keypoints'][: 9 if 'bbox' in row else 3]
        row.pop('skeleton', None)
    other.test_dataloader.dataset.ann_file = f'{cfg.work_dir}/three.json'
    Path(other.test_dataloader.dataset.ann_file).write_text(json.dumps(content))
    other.test_dataloader.dataset.keypoints = (3, 3)
    with pytest.raises(UserError, match=r'the model has 5 keypoints, but the data set .*three.json has 3'):
        evaluate(other, files('pose').path)


def test_bad_options_and_files(files, model_of, tmp_path):
    with pytest.raises(UserError, match='--masks assembles the masks of what NMS keeps: set --nms, too'):
        export_detector(*model_of('segment'), tmp_path / 'x.onnx', ExportOptions(masks=True))
    with pytest.raises(UserError, match='--masks is for models of segmentation: omit it'):
        export_detector(*model_of('pose'), tmp_path / 'x.onnx', ExportOptions(nms=True, masks=True))
    with pytest.raises(UserError, match='is a file of pose, the config is one of segmentation'):
        use_exported(model_of('segment')[0], files('pose').path)
    assert not list(tmp_path.iterdir())


def test_files_of_earlier_versions_have_two_outputs():
    assert output_names({'nms': 'false'}) == ['boxes', 'scores']
    assert output_names({'nms': 'true'}) == ['dets', 'labels']
    assert output_names({'nms': 'true', 'outputs': '["dets", "labels", "masks"]'}) == ['dets', 'labels', 'masks']
