"""A classifier in the tools, beyond what tests/test_tasks_by_tools.py has of every task."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

pytest.importorskip('mmpretrain', reason='needs requirements/classify.txt')

import mmdyn
from mmdyn.classify import TopAccuracy
from mmdyn.datasets.digits import make_digit_crops
from mmdyn.errors import UserError
from mmdyn.export.agreement import examples
from mmdyn.export.export import export_detector
from mmdyn.export.options import ExportOptions
from mmdyn.inference.evaluation import evaluate
from mmdyn.inference.onnx_detector import OnnxDetector, centre_crop
from mmdyn.inference.runtimes import open_exported
from mmdyn.reports.classification import ClassificationReport
from mmdyn.routing.analysis import analyse_routing
from mmdyn.running import load_checkpoint_model

pytestmark = pytest.mark.filterwarnings('ignore:::(?!mmdyn)', 'ignore::DeprecationWarning')


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    return make_digit_crops(tmp_path_factory.mktemp('crops') / 'crops', splits={'train': 96, 'val': 40})


@pytest.fixture(scope='module')
def on_crops(crops):
    """Options of a config that reads the crops in this process."""
    options = {f'{name}_dataloader.dataset.data_root': str(crops / name) for name in ('train', 'val')}
    options['test_dataloader.dataset.data_root'] = str(crops / 'val')
    for name in ('train', 'val', 'test'):
        options |= {f'{name}_dataloader.num_workers': 0, f'{name}_dataloader.persistent_workers': False}
    return options


@pytest.fixture
def model_of(alike, on_crops):
    return lambda variant='_dynconv-bn': alike(f'classify/yolo11n{variant}_digits.py', **on_crops)


def test_training_and_test_give_one_figure_and_end_in_a_page(call, crops, tmp_path):
    options = ('--data', crops, '--workers', 0, '--work-dir', tmp_path)
    trained = call('tools/train.py', 'classify/yolo11n_digits', *options, '--epochs', 1, '--batch', 16)
    assert trained.returncode == 0, trained.stderr
    [best] = tmp_path.glob('best_accuracy_top1_epoch_1.pth')
    [page] = tmp_path.glob('*/report/report.html')
    assert 'The surest mistakes' in page.read_text()
    figures = json.loads(page.with_name('report.json').read_text())['figures']
    assert 'accuracy/top1' in page.with_name('results.csv').read_text()
    done = call('tools/test.py', 'classify/yolo11n_digits', best, *options, '--out', tmp_path / 'found.pkl')
    assert done.returncode == 0, done.stderr
    again = max(tmp_path.glob('*/report/report.json'), key=lambda path: path.stat().st_mtime)
    assert json.loads(again.read_text())['figures'] == figures


@pytest.fixture
def exported(model_of, tmp_path):
    return export_detector(*model_of(), tmp_path / 'model.onnx', ExportOptions())


@pytest.mark.parametrize(
    'options', [dict(), dict(half=True), dict(format='openvino', batch=2), dict(format='ncnn', batch=1)], ids=str
)
def test_an_export_gives_the_scores_of_pytorch_at_every_batch(model_of, tmp_path, options):
    cfg, checkpoint = model_of()
    suffix = {'openvino': '.xml', 'ncnn': '.param'}.get(options.get('format'), '.onnx')
    done = export_detector(cfg, checkpoint, tmp_path / f'model{suffix}', ExportOptions(**options))
    model = load_checkpoint_model(cfg, checkpoint).model
    images = examples(model, (64, 64), 5)
    with torch.no_grad():
        expected = model(images, mode='tensor').softmax(1).numpy()
    session = open_exported(done.path)
    assert session.outputs == ['scores']
    for batch in {options.get('batch', 1), options.get('batch', 5)}:
        [scores] = session.run(images[:batch].numpy())
        np.testing.assert_allclose(scores, expected[:batch], atol=1e-2 if options.get('half') else 1e-5)
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    if not options.get('half'):
        assert evaluate(cfg, done.path) == evaluate(cfg, checkpoint)


def test_a_quantised_file_gives_almost_the_same_scores(model_of, crops, tmp_path):
    cfg, checkpoint = model_of('')
    done = export_detector(cfg, checkpoint, tmp_path / 'model.onnx', ExportOptions(int8=True, calibration=96))
    images = [cv2.imread(str(file)) for file in sorted((crops / 'val').rglob('*.png'))]
    scores = [np.zeros((len(images), 10)) for _ in range(2)]
    for rows, model in zip(scores, (mmdyn.load_model(cfg, checkpoint), mmdyn.load_model(done.path)), strict=True):
        for row, prediction in zip(rows, model(images, max_detections=10), strict=True):
            row[prediction.pred_instances.labels] = prediction.pred_instances.scores
    logits = [np.log(rows) - np.log(rows).mean(1, keepdims=True) for rows in scores]
    apart = [each - each.mean(0) for each in logits]  # how images differ, without what the classes have in common
    assert np.corrcoef(*map(np.ravel, apart))[0, 1] > 0.95


def test_a_file_resizes_and_crops_as_its_pipeline(model_of, crops, tmp_path):
    cfg, checkpoint = model_of()
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader.dataset.pipeline[2].size = 96  # and the centre of 64 is taken
    done = export_detector(cfg, checkpoint, tmp_path / 'model.onnx', ExportOptions())
    here, there = mmdyn.load_model(done.path), mmdyn.load_model(cfg, checkpoint, device='cpu')
    for file in sorted((crops / 'val').rglob('*.png')):
        image = cv2.resize(cv2.imread(str(file)), (120, 90))
        found, wanted = (model(image).pred_instances for model in (here, there))
        np.testing.assert_allclose(found.scores, wanted.scores, atol=0.02)  # pixels differ by one level


@pytest.mark.parametrize(
    'change', [dict(size=(64, 64)), dict(interpolation='bicubic'), dict(type='mmpretrain.torchvision/Pad', padding=2)]
)
def test_pipelines_that_no_file_repeats_are_refused(model_of, tmp_path, change):
    cfg, checkpoint = model_of('')
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader.dataset.pipeline[2].update(change)
    with pytest.raises(UserError, match='exported files of a classifier resize the shorter side bilinearly'):
        export_detector(cfg, checkpoint, tmp_path / 'model.onnx', ExportOptions())


def test_exports_of_boxes_alone_are_refused(model_of, tmp_path):
    cfg, checkpoint = model_of('')
    for options in (dict(nms=True), dict(square=False)):
        with pytest.raises(UserError, match='--nms and --dynamic-size are for models that find objects'):
            export_detector(cfg, checkpoint, tmp_path / 'model.onnx', ExportOptions(**options))
    with pytest.raises(UserError, match='--masks is for models of segmentation'):
        export_detector(cfg, checkpoint, tmp_path / 'model.onnx', ExportOptions(nms=True, masks=True))


@pytest.mark.parametrize('size', [(64, 64), (100, 77), (33, 200), (480, 640), (225, 224), (7, 9), (300, 20)], ids=str)
def test_images_are_resized_and_cropped_as_by_torchvision(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    resized = F.resize(Image.fromarray(image), 64, InterpolationMode.BILINEAR)
    expected = np.asarray(F.center_crop(resized, [64, 64]), int)
    difference = np.abs(centre_crop(image, 64, 64) - expected)
    assert difference.max() <= 1  # Pillow rounds its weights to 22 bits
    assert (difference > 0).mean() < 0.02
    for resize, side in ((96, 64), (32, 64)):  # the second has a black border
        resized = F.resize(Image.fromarray(image), resize, InterpolationMode.BILINEAR)
        expected = np.asarray(F.center_crop(resized, [side, side]), int)
        difference = np.abs(centre_crop(image, resize, side) - expected)
        assert difference.max() <= 2  # of two passes, each rounded
        assert (difference > 1).mean() < 1e-3


def test_detect_names_the_classes_that_a_test_finds(model_of, exported, crops, call, tmp_path):
    import pickle

    cfg, checkpoint = model_of()
    config = tmp_path / 'config.py'
    cfg.dump(config)
    done = call('tools/test.py', config, checkpoint, '--out', tmp_path / 'found.pkl', '--work-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    found = {row['img_path']: row['pred_score'] for row in pickle.loads((tmp_path / 'found.pkl').read_bytes())}
    folder = crops / 'val' / '3'
    for name, model in (('checkpoint', [config, checkpoint]), ('file', [exported.path])):
        out = tmp_path / name
        options = ('--out-dir', out, '--save-txt')
        done = call('demo/image_demo.py', folder, *model, *options)
        assert done.returncode == 0, done.stderr
        assert f'Classes of {len([*folder.iterdir()])} images' in done.stdout
        for file in folder.iterdir():
            rows = json.loads((out / 'preds' / f'{file.stem}.json').read_text())
            best = found[str(file)].topk(5)
            assert rows['labels'] == best.indices.tolist()
            np.testing.assert_allclose(rows['scores'], best.values, atol=2e-5)
            assert rows['names'] == [str(label) for label in rows['labels']]
            assert 'bboxes' not in rows
            line = (out / 'labels' / f'{file.stem}.txt').read_text().splitlines()[0].split()
            assert line[1] == rows['names'][0]
            assert f'{file.name}: {rows["names"][0]} {rows["scores"][0]:.2f}' in done.stdout
            assert cv2.imread(str(out / 'vis' / file.name)).shape == (64, 64, 3)


def test_limits_of_a_classifier(exported, crops):
    detector = OnnxDetector(exported.path)
    image = cv2.imread(str(next((crops / 'val/3').iterdir())))
    boxes, scores, labels, *_ = detector(image)
    assert boxes is None
    assert len(labels) == 5
    assert (np.diff(scores) <= 0).all()
    assert set(detector(image, classes=[2, 7]).labels) == {2, 7}
    assert len(detector(image, max_detections=10).labels) == 10
    assert len(detector(image, score=0.999).labels) <= 1
    model = mmdyn.load_model(exported.path)
    for options, message in (
        (dict(iou=0.5), 'iou is a limit of boxes, and a classifier has none'),
        (dict(agnostic=True), 'agnostic is a limit of boxes'),
    ):
        with pytest.raises(UserError, match=message):
            model(image, **options)
    with pytest.raises(UserError, match='a classifier finds none: take a detector'):
        model.sliced()
    with pytest.raises(UserError, match='a classifier finds none: take a detector'):
        model.track('video.mp4')


def test_weights_alone_say_which_classifier_they_are(model_of, crops):
    _, checkpoint = model_of('')
    model = mmdyn.load_model(checkpoint)
    assert model.classifies
    assert len(model(next((crops / 'val/3').iterdir())).pred_instances.labels) == 5


def test_a_checkpoint_of_a_training_brings_its_images(model_of, crops, tmp_path):
    cfg, checkpoint = model_of('')
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader.dataset.pipeline[2].size = 80
    content = torch.load(checkpoint, weights_only=True)
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'trained.pth')
    alone, both = mmdyn.load_model(tmp_path / 'trained.pth', device='cpu'), mmdyn.load_model(cfg, checkpoint, 'cpu')
    image = cv2.resize(cv2.imread(str(next((crops / 'val/3').iterdir()))), (120, 90))
    np.testing.assert_array_equal(alone(image).pred_instances.scores, both(image).pred_instances.scores)
    content['meta']['cfg'] = cfg.pretty_text.replace("interpolation='bilinear'", "interpolation='bicubic'")
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'the config in .*other.pth tests other images: give the config, too'):
        mmdyn.load_model(tmp_path / 'other.pth')


def test_routing_of_a_classifier_is_drawn(model_of, crops):
    model = mmdyn.load_model(*model_of(), device='cpu')
    prediction = model(next((crops / 'val/3').iterdir()), routing=True)
    assert set(prediction.routing) == {f'backbone.stage{i}.0.conv' for i in (1, 2, 3, 4)}
    assert prediction.draw().shape[1] > 64


def test_the_report_counts_as_by_hand():
    predicted = np.array([[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 0, 1]])
    report = ClassificationReport(np.ones((4, 3)) / 3, predicted, np.array([0, 1, 1, 0]), ('a', 'b', 'c'))
    assert report.accuracy(1) == 0.5
    assert report.accuracy(2) == 0.75
    assert report.confusion().tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    by_class = {row['class']: (row['images'], row['precision'], row['recall']) for row in report.rows()}
    assert by_class.pop('c')[0] == 0
    assert by_class == {'all': (4, 0.75, 0.5), 'a': (2, 0.5, 0.5), 'b': (2, 1.0, 0.5)}
    assert report.table().splitlines()[4].split() == ['c', '0', '–', '–', '–']


def test_a_report_of_many_classes_and_of_a_long_image(tmp_path):
    cv2.imwrite(str(tmp_path / 'long.png'), np.zeros((10, 5000, 3), np.uint8))
    labels = np.arange(1000)
    predicted = (labels[:, None] + np.arange(5)) % 1000
    predicted[0] = [7, 8, 9, 10, 11]
    names = [f'class {i}' for i in range(1000)]
    report = ClassificationReport(np.ones((1000, 5)), predicted, labels, names, [tmp_path / 'long.png'] * 1000)
    assert len(report.table().splitlines()) < 30
    assert 'class 0 ' in report.table()  # the worst
    page = report.write(tmp_path / 'report')
    assert page.stat().st_size < 3e6
    assert page.with_name('report.json').stat().st_size < 4e6


def test_what_a_classifier_cannot_do_is_said(crops, call, tmp_path):
    data = ('--data', crops, '--workers', 0, '--work-dir', tmp_path)
    grey = ('--cfg-options', 'model.backbone.input_channels=1')
    done = call('tools/train.py', 'classify/yolo11n_digits', *data, *grey)
    assert done.returncode == 1
    assert 'invalid number of image channels 1: images of a classifier have 3 channels' in done.stderr
    done = call('tools/browse_dataset.py', 'classify/yolo11n_digits', '--data', crops, '--out-dir', tmp_path / 'page')
    assert done.returncode == 1
    assert 'a page of objects, and images of a classifier have none' in done.stderr


def test_crops_of_objects_are_refused_before_anything_is_written(exported, crops, call, tmp_path):
    done = call('demo/image_demo.py', crops / 'val/3', exported.path, '--save-crop', '--out-dir', tmp_path / 'out')
    assert done.returncode == 1
    assert '--save-crop is for models that find objects, and a classifier finds none' in done.stderr
    assert not (tmp_path / 'out').exists()


def test_routing_of_a_classifier_by_class(model_of):
    cfg, checkpoint = model_of()
    analysis = analyse_routing(cfg, checkpoint, 'val', 20)
    assert len(analysis.routing) == 4
    assert (analysis.present.sum(1) == 1).all()


def test_pictures_of_a_test_are_written(model_of, call, tmp_path):
    cfg, checkpoint = model_of('')
    cfg.dump(tmp_path / 'config.py')
    options = ('--work-dir', tmp_path, '--show-dir', 'pictures')
    done = call('tools/test.py', tmp_path / 'config.py', checkpoint, *options)
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob('*/pictures/*')]) == 40


def test_a_metric_keeps_what_the_report_shows():
    metric = TopAccuracy(topk=(1, 5))
    samples = [dict(pred_score=torch.tensor([0.1, 0.2, 0.7]), gt_label=torch.tensor([2]))]
    assert metric.compute_metrics(samples) == {'top1': 1.0, 'top5': 1.0}
    assert metric.evaluations['predicted'].tolist() == [[2, 1, 0]]
