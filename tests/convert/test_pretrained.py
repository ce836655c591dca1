"""Pretraining: the backbone of a checkpoint in a model of another task, static or dynamic; and what does not fit."""

import pytest
import torch

from mmdyn.convert.pretrained import backbone_of
from mmdyn.errors import UserError
from mmdyn.inference.packaged import packaged
from mmdyn.models import YOLO11Backbone, build_model
from mmdyn.running import load_config
from mmdyn.running.training_options import start_from_backbone


def started(config, checkpoint):
    """A model as a training begins, with the backbone of a checkpoint."""
    cfg = load_config(config)
    start_from_backbone(cfg, checkpoint)
    model = build_model(cfg)
    model.init_weights()
    return model.eval()


@pytest.fixture(scope='module')
def static(alike):
    return alike('yolo11n_coco.py')[1]


@pytest.mark.parametrize('config', ['segment/yolo11n_coco', 'yolo11n_dynconv-bn_coco', 'pose/yolo11n_dynconv-bn_coco'])
def test_features_are_those_of_the_checkpoint(static, config):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 96, 64)
    model, own = started(config, static), build_model(load_config('yolo11n_coco'))
    own.load_state_dict(torch.load(static, weights_only=True)['state_dict'])
    with torch.no_grad():
        for found, expected in zip(model.backbone(images), own.eval().backbone(images), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_the_rest_begins_new(static):
    torch.manual_seed(0)
    model, own = started('segment/yolo11n_coco', static), torch.load(static, weights_only=True)['state_dict']
    here = model.state_dict()
    assert torch.equal(here['backbone.stage1.1.main_conv.conv.weight'], own['backbone.stage1.1.main_conv.conv.weight'])
    assert not torch.equal(
        here['neck.bottom_up_layers.0.main_conv.conv.weight'], own['neck.bottom_up_layers.0.main_conv.conv.weight']
    )


def test_a_backbone_without_sppf_starts_one_with_it(tmp_path):
    """As of a classifier: the C2PSA keeps its name."""
    options = dict(deepen_factor=0.5, widen_factor=0.25)
    source = YOLO11Backbone(**options, sppf=False)
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}}, tmp_path / 'a.pth')
    whole = YOLO11Backbone(**options, init_cfg=dict(type='BackboneOf', checkpoint=str(tmp_path / 'a.pth')))
    whole.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('yolo11s_coco', r'does not fit the backbone of the config: \d+ of \d+ tensors, .*another scale or variant'),
        ('yolo11n_dynconv_coco', r'does not fit the backbone .*a bare variant needs one of its own kind'),
    ],
)
def test_what_does_not_fit_is_refused(static, config, message):
    with pytest.raises(UserError, match=message):
        started(config, static)


def test_files_that_are_refused(tmp_path, static):
    with pytest.raises(UserError, match='--pretrained none.pth: there is no file at'):
        start_from_backbone(load_config('yolo11n_coco'), 'none.pth')
    torch.save({'state_dict': {'head.fc.weight': torch.zeros(3)}}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='has no backbone: give a checkpoint of a model that has one'):
        backbone_of(tmp_path / 'a.pth')
    cfg = load_config('yolo11n_coco', {'load_from': 'x.pth'})
    with pytest.raises(UserError, match='--pretrained is for the backbone, --weights for the whole model: omit one'):
        start_from_backbone(cfg, static)
    with pytest.raises(UserError, match='is for a YOLO11Backbone, the config has mmdet.ResNet|the config has'):
        start_from_backbone(load_config('retinanet_dynconv_r50_fpn_1x_coco'), static)


def test_a_training_starts_from_it(call, digits, tmp_path):
    _, weights = packaged('yolo11n_digits')
    options = ('--data', digits, '--epochs', 1, '--imgsz', 96, '--workers', 0, '--work-dir', tmp_path)
    done = call('tools/train.py', 'segment/yolo11n_dynconv-bn_digits', '--pretrained', weights, *options)
    assert done.returncode == 0, done.stderr
    assert 'upcycled: 4 dynamic convolutions start with copies of static kernels' in done.stdout
    assert f'tensors of {weights}' in done.stdout
