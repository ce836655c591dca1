"""The routing of a checkpoint over a data set: numbers as from the layer itself, pictures, and the tool."""

import json

import cv2
import pytest
import torch
from mmengine.config import Config

from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.layers import global_mean
from mmdyn.routing.analysis import analyse_routing, draw_by_class, most_different, write_analysis
from mmdyn.running import load_checkpoint_model
from mmdyn.running.dataset_images import dataset_images

CONFIG = 'yolo11n_dynconv-bn_digits.py'


@pytest.fixture(scope='module')
def roots(digits):
    return {f'{name}_dataloader.dataset.data_root': str(digits) for name in ('train', 'val', 'test')}


@pytest.fixture(scope='module')
def detector(alike, roots):
    return alike(CONFIG, **roots)


@pytest.fixture(scope='module')
def found(detector):
    return analyse_routing(*detector)


@pytest.mark.parametrize(('number', 'expected'), [(1, 1), (5, 5), (100, 8)])
def test_as_many_images_as_asked_for(detector, number, expected):
    cfg, checkpoint = detector
    preprocessor = load_checkpoint_model(cfg, checkpoint).model.data_preprocessor
    assert len(list(dataset_images(cfg, preprocessor, 'val', number, 'reading'))) == expected


def test_weights_are_those_of_the_layer_for_each_image_by_itself(detector, found):
    cfg, checkpoint = detector
    model = load_checkpoint_model(cfg, checkpoint).model
    assert len(found.routing) == 6
    assert {tuple(w.shape) for w in found.routing.values()} == {(8, 4)}
    images = list(dataset_images(cfg, model.data_preprocessor, 'val', 100, 'reading'))
    for place, (image, sample) in enumerate(images):
        with torch.no_grad():
            expected = model.backbone.stage1[0].conv.router(global_mean(model.backbone.stem(image))[1])
        torch.testing.assert_close(found.routing['backbone.stage1.0.conv'][place], expected[0], atol=1e-5, rtol=1e-5)
        assert found.paths[place] == sample.img_path
        labels = {str(int(i)) for i in sample.gt_instances.labels}
        assert {c for c, there in zip(found.classes, found.present[place]) if there} == labels


def test_the_numbers_of_images(detector):
    assert len(analyse_routing(*detector, number=3).paths) == 3
    assert len(analyse_routing(*detector, split='train').paths) == 24


def test_most_different_images():
    weights = torch.tensor([[0.5, 0.5], [0.1, 0.5], [0.6, 0.5], [0.9, 0.5]])
    assert most_different(weights) == (1, 3)
    assert most_different(weights[:1]) == (0, 0)


def test_what_is_written(found, tmp_path):
    write_analysis(found, tmp_path / 'new')
    numbers = json.loads((tmp_path / 'new/routing.json').read_text())
    assert set(numbers) == set(found.routing)
    for name, weights in found.routing.items():
        assert [numbers[name][f'weight_{m}'] for m in range(4)] == pytest.approx(weights.mean(0).tolist(), abs=1e-6)
    for name in ('by_layer', 'by_class', 'most_different'):
        picture = cv2.imread(str(tmp_path / f'new/{name}.png'))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 10
    text = (tmp_path / 'new/routing.md').read_text()
    assert text.count('.png)') == 3
    assert all(f'| {name} |' in text for name in found.routing)


def test_pictures_of_images_without_boxes(found):
    empty = found._replace(present=torch.zeros_like(found.present))
    assert draw_by_class(empty).shape[2] == 3


def test_what_cannot_be_analysed_is_named(alike, roots, detector):
    with pytest.raises(UserError, match='has no dynamic convolution'):
        analyse_routing(*alike('yolo11n_digits.py', **roots))
    cfg = Config(detector[0].to_dict())
    cfg.train_dataloader = None
    with pytest.raises(UserError, match='the config has no train_dataloader'):
        analyse_routing(cfg, detector[1], 'train')
    with pytest.raises(UserError, match='the number of images must be at least 1, got 0'):
        analyse_routing(*detector, number=0)


@pytest.mark.slow
def test_the_tool(call, detector, digits, tmp_path):
    config = ROOT / 'configs' / CONFIG
    options = ('--data', digits, '--images', 4)
    done = call(ROOT / 'tools/analyze_routing.py', config, detector[1], '--out-dir', tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert '| neck.downsample_layers.1.conv |' in done.stdout
    assert (tmp_path / 'by_class.png').exists()
    bad = call(ROOT / 'tools/analyze_routing.py', config, tmp_path / 'none.pth', *options)
    assert (bad.returncode, 'no checkpoint at' in bad.stderr, 'Traceback' in bad.stderr) == (1, True, False)
