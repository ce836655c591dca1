"""Upcycling: the dynamic detector computes what the static one does, and its experts part in training."""

import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn

from conftest import ROOT
from mmdyn import DynamicConv
from mmdyn.errors import UserError
from mmdyn.layers import dynamic_layers, upcycle_conv
from mmdyn.running import load_checkpoint_model
from mmdyn.surgery.counterpart import static_counterpart
from mmdyn.surgery.upcycle import output_difference, upcycle_checkpoint


def load(name: str, **options) -> Config:
    cfg = Config.fromfile(ROOT / 'configs' / name)
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize('routing', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('experts', [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize('groups', [1, 2])
def test_a_layer_computes_the_same_for_every_input(experts, routing, groups):
    static = nn.Conv2d(4, 6, 3, 2, 1, groups=groups).double()
    layer = DynamicConv(
        4, 6, 3, 2, 1, groups=groups, bias=True, num_experts=experts, routing=routing, temperature=3.0
    ).double()
    upcycle_conv(layer, static.weight, static.bias)
    for scale in (0.1, 1, 50):
        x = scale * torch.randn(3, 4, 9, 11, dtype=torch.float64)
        torch.testing.assert_close(layer(x), static(x), rtol=1e-12, atol=1e-12 * scale)
    if experts > 2 - (routing == 'softmax'):
        weights = layer.router(torch.randn(5, 4, dtype=torch.float64))
        assert (weights.std(0) > 1e-3).sum() >= experts - 1  # the routing is alive


@pytest.mark.parametrize('routing', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('experts', [2, 4, 5])
def test_experts_part_in_training(experts, routing):
    static = nn.Conv2d(8, 8, 3, padding=1)
    layer = DynamicConv(8, 8, 3, padding=1, bias=True, num_experts=experts, routing=routing)
    upcycle_conv(layer, static.weight, static.bias)
    model = nn.Sequential(layer, nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.randn(64, 8, 8, 8) + torch.randn(64, 8, 1, 1), torch.randint(3, (64,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def distance(tensors):
        return min(float((a - b).norm() / a.norm()) for i, a in enumerate(tensors) for b in tensors[:i])

    assert distance(layer.weight.detach()) == 0
    for step in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if step == 0:
            assert distance(layer.weight.grad) > 1e-3  # gradients differ from the first step on
        optimizer.step()
    assert distance(layer.weight.detach()) > 1e-3


CASES = {
    'down-sampling': ('yolo11n_dynconv-bn_coco.py', {}),
    'softmax, three experts in the neck': (
        'yolo11n_dynconv-bn_coco.py',
        {
            'model.backbone.downsample_cfg.conv_cfg.routing': 'softmax',
            'model.neck.downsample_cfg.conv_cfg.num_experts': 3,
        },
    ),
    'blocks': ('yolo11n_c3k2_dynconv-bn_coco.py', {}),
    'segmentation': ('segment/yolo11n_dynconv-bn_coco.py', {}),
    'pose': ('pose/yolo11n_dynconv-bn_coco.py', {}),
    'oriented boxes': ('obb/yolo11n_dynconv-bn_dota.py', {}),
}


@pytest.mark.parametrize('case', CASES)
def test_a_detector_computes_the_same_in_float32(alike, case, tmp_path):
    config, options = CASES[case]
    data = config.rpartition('_')[2]
    cfg, static = alike(f'{config.rpartition("/")[0]}/yolo11n_{data}'.lstrip('/'))
    dynamic = load(config, **options)
    done = upcycle_checkpoint(static, dynamic, tmp_path / 'dynamic.pth')
    assert done.difference < 1e-6
    assert done.new == done.left == ()
    model = load_checkpoint_model(dynamic, tmp_path / 'dynamic.pth').model
    assert output_difference(model, load_checkpoint_model(cfg, static).model) <= 1e-5
    assert set(done.layers) == set(dynamic_layers(model))


def test_what_is_on_one_side_only_is_reported(alike, tmp_path):
    _, static = alike('yolo11n_coco.py')
    content = torch.load(static, weights_only=True)
    content['state_dict']['bbox_head.extra.weight'] = torch.zeros(3)
    torch.save(content, tmp_path / 'static.pth')
    cfg = load('yolo11n_dynconv-bn_digits.py')
    done = upcycle_checkpoint(tmp_path / 'static.pth', cfg, tmp_path / 'dynamic.pth')
    assert 'bbox_head.extra.weight' in done.left
    assert done.new
    assert all('.cls_preds.' in name for name in done.new)
    load_checkpoint_model(cfg, tmp_path / 'dynamic.pth')
    again = torch.load(tmp_path / 'dynamic.pth', weights_only=True)
    assert 'dataset_meta' not in again['meta']  # the class names are no longer its own


def test_refusals_write_nothing(alike, tmp_path):
    _, static = alike('yolo11n_coco.py')
    _, dynamic = alike('yolo11n_dynconv-bn_coco.py')
    target = tmp_path / 'out.pth'
    for source, config, message in (
        (static, 'yolo11n_dynconv_coco.py', 'give a config with -bn in its name'),
        (static, 'yolo11s_dynconv-bn_coco.py', 'of the same scale'),
        (static, 'yolo11n_coco.py', 'the config has no DynamicConv'),
        (dynamic, 'yolo11n_dynconv-bn_coco.py', 'is already dynamic'),
        (tmp_path / 'none.pth', 'yolo11n_dynconv-bn_coco.py', 'no checkpoint at'),
    ):
        with pytest.raises(UserError, match=message):
            upcycle_checkpoint(source, load(config), target)
    assert not list(tmp_path.iterdir())
    target.write_text('mine')
    with pytest.raises(UserError, match='exists and is not overwritten'):
        upcycle_checkpoint(static, load('yolo11n_dynconv-bn_coco.py'), target)


@pytest.mark.parametrize('scale', 'nsmlx')
@pytest.mark.parametrize('variant', ['dynconv-bn', 'c3k2_dynconv-bn'])
def test_the_static_counterpart_of_the_variant_with_norms_is_the_stock_config(scale, variant):
    dynamic = load(f'yolo11{scale}_{variant}_coco.py')
    before = copy.deepcopy(dynamic.model.to_dict())
    static = static_counterpart(dynamic).model.to_dict()
    for part in ('backbone', 'neck'):  # what the dynamic config spells out is the default
        assert static[part]['block_cfg'].pop('conv2_cfg', dict(type='ConvModule')) == dict(type='ConvModule')
    assert static == load(f'yolo11{scale}_coco.py').model.to_dict()
    assert dynamic.model.to_dict() == before


def test_other_detectors_have_a_counterpart_too():
    from mmengine.registry import MODELS, DefaultScope

    cfg = load('retinanet_dynconv_r50_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        static = MODELS.build(static_counterpart(cfg).model)
        dynamic = MODELS.build(cfg.model)
    assert not dynamic_layers(static)
    layers = dynamic_layers(dynamic)
    for name, layer in layers.items():
        assert static.get_submodule(name).weight.shape == layer.experts.shape[1:]


@pytest.mark.processes
@pytest.mark.slow
def test_three_commands_from_published_weights_to_training(run, alike, digits, tmp_path):
    from mmdyn.convert import convert_to_original

    _, ours = alike('yolo11n_coco.py')
    convert_to_original(ours, tmp_path / 'yolo11n.pt')
    static = tmp_path / 'yolo11n.pth'
    done = run(ROOT / 'tools/convert_ultralytics.py', tmp_path / 'yolo11n.pt', static)
    assert done.returncode == 0, done.stderr[-2000:]
    config, out = ROOT / 'configs/yolo11n_dynconv-bn_digits.py', tmp_path / 'dynamic.pth'
    done = run(ROOT / 'tools/upcycle.py', static, config, out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '6 layers with 4 experts each' in done.stdout
    assert 'cls_preds' in done.stdout
    loaders = [f'{name}_dataloader.dataset.data_root={digits}' for name in ('train', 'val', 'test')]
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=5', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', f'load_from={out}']
    done = run(ROOT / 'tools/train.py', config, '--work-dir', tmp_path / 'w', '--cfg-options', *options, *loaders)
    assert done.returncode == 0, done.stderr[-2000:]
    total = len(load_checkpoint_model(load('yolo11n_dynconv-bn_digits.py'), out).model.state_dict())
    assert f'taken: {total} of {total} tensors' in done.stdout
    trained = torch.load(tmp_path / 'w/epoch_1.pth', weights_only=True)['state_dict']
    experts = trained['backbone.stage2.0.conv.weight']
    assert (experts[0] - experts[1]).norm() > 0
