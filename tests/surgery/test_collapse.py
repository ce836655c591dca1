"""Collapse: mean kernels, their error and its bound, and static checkpoints that load strictly."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from conftest import ROOT
from mmdyn import DynamicConv
from mmdyn.errors import UserError
from mmdyn.layers import ODConv, dynamic_layers
from mmdyn.layers.odconv import Attention
from mmdyn.layers.recording import record_attention, record_routing
from mmdyn.running import load_checkpoint_model
from mmdyn.surgery.collapse import _chosen, attention_errors, collapse_checkpoint, kernel_errors, mean_kernel
from mmdyn.surgery.upcycle import output_difference


def test_the_error_is_that_of_the_kernels_and_bounds_every_output():
    layer = DynamicConv(4, 6, 3, stride=2, padding=1, groups=2)
    x = torch.randn(7, 4, 9, 9)
    routing = layer.router(x.mean((2, 3))).detach()
    kernels = torch.einsum('nm,m...->n...', routing, layer.experts).detach()
    mean = mean_kernel(layer, routing)['weight']
    direct = (kernels - mean).flatten(1).norm(dim=1) / mean.norm()
    errors = kernel_errors(layer.experts.detach(), routing)
    torch.testing.assert_close(errors.float(), direct, rtol=1e-4, atol=1e-6)
    assert errors.min() > 0
    off = (layer(x) - F.conv2d(x, mean, None, 2, 1, 1, 2)).norm(dim=1).flatten(1).amax(1)  # over positions
    patches = F.unfold(x, 3, padding=1, stride=2).norm(dim=1).amax(1)
    assert (off <= errors.float() * mean.norm() * patches * (1 + 1e-4)).all()


def test_a_layer_whose_routing_is_constant_collapses_exactly():
    layer = DynamicConv(4, 6, 3, bias=True)
    torch.nn.init.zeros_(layer.router.weight)
    x = torch.randn(3, 4, 8, 8)
    static = mean_kernel(layer, layer.router(x.mean((2, 3))))
    torch.testing.assert_close(F.conv2d(x, static['weight'], static['bias']), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('experts', [1, 3])
def test_odconv_collapses_to_its_mean_kernel(experts):
    """The mean of the products of all its attention, over more images than are in memory at once."""
    model = torch.nn.Sequential(ODConv(4, 6, 3, bias=True, num_experts=experts), torch.nn.ReLU()).eval()
    images = torch.randn(21, 4, 8, 8)
    with record_attention(model) as seen, record_routing(model) as routed:
        for part in images.split(4):
            model(part)
    attention = model[0].attend(images.mean((2, 3)))
    whole = Attention(*(None if p[0] is None else torch.cat(p) for p in zip(*seen['0'], strict=True)))
    for ours, expected in zip(whole, attention, strict=True):
        assert (ours is None) == (expected is None)
        torch.testing.assert_close(ours, expected)
    assert sum(map(len, routed['0'])) == (0 if experts == 1 else 21)
    kernels = model[0].mixed_kernels(attention)
    mean = mean_kernel(model[0], whole)
    torch.testing.assert_close(mean['weight'], kernels.mean(0))
    errors = (kernels - kernels.mean(0)).flatten(1).norm(dim=1) / kernels.mean(0).norm()
    torch.testing.assert_close(attention_errors(model[0], whole).float(), errors, rtol=1e-4, atol=1e-6)


def on(digits, config: str) -> dict:
    return {f'{name}_dataloader.dataset.data_root': str(digits) for name in ('train', 'val', 'test')}


VARIANTS = {
    'yolo11n_dynconv-bn_digits.py': {},
    'yolo11n_dynconv_digits.py': {},
    'segment/yolo11n_dynconv-bn_digits.py': {},
    'pose/yolo11n_dynconv_digits.py': {},
    'obb/yolo11n_dynconv-bn_digits.py': {},
    'blocks': {'model.backbone.block_cfg': dict(type='C3k2_DynamicConv', num_experts=3)},
}


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_detector_collapses_to_one_that_loads_strictly(alike, digits, tmp_path, variant):
    config = 'yolo11n_digits.py' if variant == 'blocks' else variant
    cfg, checkpoint = alike(config, **VARIANTS[variant], **on(digits, config))
    done = collapse_checkpoint(cfg, checkpoint, tmp_path / 'static.pth', number=8)
    assert done.images == 8
    static = load_checkpoint_model(Config.fromfile(tmp_path / 'static.py'), tmp_path / 'static.pth')
    assert not dynamic_layers(static.model)
    assert static.classes is not None
    dynamic = load_checkpoint_model(cfg, checkpoint).model
    frozen = copy.deepcopy(dynamic)
    for layer, report in zip(dynamic_layers(frozen).values(), done.layers, strict=True):
        torch.nn.init.zeros_(layer.router.weight)
        layer.router.bias.data = torch.logit(report.mean)
    assert output_difference(frozen, static.model) < 1e-4  # the same, with routing held at its mean
    if variant == 'yolo11n_dynconv-bn_digits.py':
        load_checkpoint_model(Config.fromfile(ROOT / 'configs/yolo11n_digits.py'), tmp_path / 'static.pth')
    assert done.table().count('static |') == len(done.layers)


def test_only_layers_under_the_threshold(alike, digits, tmp_path):
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **on(digits, ''))
    whole = collapse_checkpoint(cfg, checkpoint, tmp_path / 'whole.pth', number=8)
    errors = sorted(layer.error for layer in whole.layers)
    threshold = (errors[2] + errors[3]) / 2
    part = collapse_checkpoint(cfg, checkpoint, tmp_path / 'part.pth', number=8, threshold=threshold)
    assert {layer.name for layer in part.layers if layer.collapsed} == {
        layer.name for layer in whole.layers if layer.error <= threshold
    }
    model = load_checkpoint_model(Config.fromfile(tmp_path / 'part.py'), tmp_path / 'part.pth').model
    assert set(dynamic_layers(model)) == {layer.name for layer in part.layers if not layer.collapsed}
    assert len(dynamic_layers(model)) == 3


def test_layers_of_one_block_go_together(alike, digits, tmp_path):
    cfg, checkpoint = alike('yolo11n_digits.py', **VARIANTS['blocks'], **on(digits, ''))
    whole = collapse_checkpoint(cfg, checkpoint, tmp_path / 'whole.pth', number=8)
    errors = {layer.name: layer.error for layer in whole.layers}
    inner = [name for name in errors if 'stage3.1' in name]
    assert len(inner) == 2  # both of one C3k
    threshold = min(errors[name] for name in inner)
    part = collapse_checkpoint(cfg, checkpoint, tmp_path / 'part.pth', number=8, threshold=threshold)
    assert not {layer.name for layer in part.layers if layer.collapsed} & set(inner)
    load_checkpoint_model(Config.fromfile(tmp_path / 'part.py'), tmp_path / 'part.pth')


def test_refusals_write_nothing(alike, digits, tmp_path):
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **on(digits, ''))
    target = tmp_path / 'static.pth'
    with pytest.raises(UserError, match='the number of images must be at least 1, got 0'):
        collapse_checkpoint(cfg, checkpoint, target, number=0)
    with pytest.raises(UserError, match='no layer is within the threshold of 0'):
        collapse_checkpoint(cfg, checkpoint, target, number=4, threshold=0)
    static_cfg, static = alike('yolo11n_digits.py', **on(digits, ''))
    with pytest.raises(UserError, match='it is static'):
        collapse_checkpoint(static_cfg, static, target)
    untrained = torch.load(checkpoint, weights_only=True)
    for key, value in untrained['state_dict'].items():
        if key.endswith('running_mean'):
            value.zero_()
    torch.save(untrained, tmp_path.parent / 'untrained.pth')
    with pytest.raises(UserError, match='was never trained'):
        collapse_checkpoint(cfg, tmp_path.parent / 'untrained.pth', target)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('images', [('--images', '2'), ('--data', '2')], ids=['images', 'as it was called'])
def test_the_tool(alike, call, digits, tmp_path, images):
    _, checkpoint = alike('yolo11n_dynconv-bn_digits.py')
    options = ('--no-eval', '--cfg-options', f'train_dataloader.dataset.data_root={digits}')
    out = tmp_path / 'static.pth'
    done = call('tools/collapse.py', 'yolo11n_dynconv-bn_digits', checkpoint, '--out', out, *images, *options)
    assert done.returncode == 0, done.stderr
    assert '6 of 6 layers are static now, with mean routing weights of 2 images' in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ['static.md', 'static.pth', 'static.py']


def test_a_layer_at_the_threshold_is_within_it():
    errors = {'backbone.stage1.0': 0.1, 'backbone.stage2.0': 0.2}
    assert _chosen(errors, 0.1) == {'backbone.stage1.0'}
    assert _chosen(errors, 0.2) == _chosen(errors, None) == set(errors)


@pytest.mark.parametrize('threshold', [float('nan'), float('inf'), -0.1])
def test_a_threshold_is_a_relative_error(threshold, tmp_path):
    with pytest.raises(UserError, match='the threshold must be at least 0'):
        collapse_checkpoint(Config(), 'x.pth', tmp_path / 'x.pth', threshold=threshold)


def test_calibration_finds_the_images_of_a_repeated_set(alike, digits, tmp_path):
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **on(digits, ''))
    once = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='mmdet.RepeatDataset', times=2, dataset=once)
    assert collapse_checkpoint(cfg, checkpoint, tmp_path / 'static.pth', number=4).images == 4


def test_an_empty_calibration_set_is_named(alike, digits, tmp_path):
    import json

    empty = json.loads((digits / 'annotations/train.json').read_text()) | dict(images=[], annotations=[])
    (tmp_path / 'empty.json').write_text(json.dumps(empty))
    options = on(digits, '') | {'train_dataloader.dataset.ann_file': str(tmp_path / 'empty.json')}
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **options)
    with pytest.raises(UserError, match=r'empty\.json'):
        collapse_checkpoint(cfg, checkpoint, tmp_path / 'static.pth', number=4)
    assert [p.name for p in tmp_path.iterdir()] == ['empty.json']
