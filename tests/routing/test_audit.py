"""The audit of routing: what it changes is what it says, and swapping changes nothing where routing is constant."""

import pytest
import torch
from torch import nn

from mmdyn.errors import UserError
from mmdyn.layers import DynamicConv, ODConv, dynamic_layers
from mmdyn.models import build_model
from mmdyn.routing.audit import (
    RoutingAudit,
    Stability,
    SwapRoutingHook,
    audit_routing,
    stability,
    stored_again,
    swapped_scores,
)


class Preprocessor(nn.Module):
    """Of images in RGB, from 0 to 1."""

    mean, std = torch.zeros(3, 1, 1), torch.full((3, 1, 1), 255.0)


def test_an_image_that_is_stored_again_hardly_differs():
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    image = torch.stack([ramp[0], ramp[1].T, 1 - ramp[2]])[None]
    again = stored_again(image, Preprocessor())
    assert again.shape == image.shape
    assert 0 < (again - image).abs().mean() < 0.01


class Runner:
    """What the hook uses of one."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize(
    'layer',
    [lambda: DynamicConv(4, 6, 3), lambda: ODConv(4, 6, 3, num_experts=1), lambda: ODConv(4, 6, 3, num_experts=3)],
    ids=['dynconv', 'odconv1', 'odconv3'],
)
def test_every_image_gets_the_kernel_of_another(layer):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer()).eval()
    images, hook, runner = torch.randn(7, 3, 9, 9), SwapRoutingHook(), Runner(model)

    def run():
        hook.before_test_epoch(runner)
        outputs = []
        for batch, part in enumerate(images.split(3)):
            outputs.append(model(part))
            hook.after_test_iter(runner, batch, None, outputs[-1])
        hook.after_test_epoch(runner)
        return torch.cat(outputs)

    with torch.no_grad():
        plain = run()
        torch.testing.assert_close(plain, model(images), rtol=1e-4, atol=1e-5)
        hook.draw(0)
        swapped = run()
        order = hook.order
        assert sorted(order.tolist()) == list(range(7))
        assert all(i != j for i, j in enumerate(order.tolist()))
        features, conv = model[0](images), model[1]
        pooled = features.mean((2, 3))
        if isinstance(conv, ODConv):
            kernels = conv.mixed_kernels(conv.attend(pooled))
        else:
            kernels = torch.einsum('bm,m...->b...', conv.router(pooled), conv.experts)
        for i, j in enumerate(order.tolist()):
            expected = torch.nn.functional.conv2d(features[i : i + 1], kernels[j])
            torch.testing.assert_close(swapped[i : i + 1], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(images), plain, rtol=1e-4, atol=1e-5)  # nothing stays attached


def on(digits, name: str) -> dict:
    options = {f'{split}_dataloader.dataset.data_root': str(digits) for split in ('train', 'val', 'test')}
    return options | {'test_dataloader.num_workers': 1, 'visualizer.name': name}  # a visualizer of a name is built once


def test_a_detector_is_audited(alike, digits, tmp_path):
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **on(digits, 'audited'), work_dir=str(tmp_path))
    found = audit_routing(cfg, checkpoint, number=6, draws=2)
    assert len(found.swapped) == 2
    assert all(layer.spread > 0 and len(layer.moves) == 2 for layer in found.layers.values())
    assert list(found.layers) == list(dynamic_layers(build_model(cfg)))


def test_swapping_constant_routing_changes_nothing(alike, digits, tmp_path):
    uniform = {'model.backbone.downsample_cfg.conv_cfg.router': dict(type='uniform')}
    uniform['model.neck.downsample_cfg.conv_cfg.router'] = dict(type='uniform')
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **uniform, **on(digits, 'uniform'), work_dir=str(tmp_path))
    score, swapped = swapped_scores(cfg, checkpoint, draws=2)
    assert swapped == (score, score)
    still = stability(cfg, checkpoint, number=4)
    assert all(layer == Stability(0.0, (0.0, 0.0)) for layer in still.values())


def test_what_it_says():
    layers = {'a': Stability(0.1, (0.02, 0.005)), 'b': Stability(0.0, (0.0, 0.0))}
    found = RoutingAudit(layers, 0.5, (0.4, 0.44))
    assert '| a | 0.1000 | 0.20 | 0.05 |' in found.table()
    assert '| b | 0.0000 | – | – |' in found.table()
    assert found.verdict() == '0.5000, and 0.4200 (0.4000 to 0.4400) with the routing of other images: lower by 0.0800'
    assert 'not lower: 0.0100' in found._replace(swapped=(0.51,)).verdict()


def test_what_cannot_be_audited(alike, digits):
    cfg, checkpoint = alike('yolo11n_digits.py', **on(digits, 'refused'))
    with pytest.raises(UserError, match='has routing weights: set the checkpoint of a dynamic detector'):
        stability(cfg, checkpoint, number=2)
    with pytest.raises(UserError, match='--draws must be at least 1, got 0'):
        swapped_scores(cfg, checkpoint, draws=0)


def test_a_router_that_runs_several_times_for_an_image_is_refused():
    model, hook = nn.Sequential(DynamicConv(4, 4, 3, padding=1)).eval(), SwapRoutingHook()
    hook.before_test_epoch(Runner(model))
    outputs = model(model(torch.randn(3, 4, 5, 5)))
    hook.after_test_iter(None, 0, None, outputs)
    hook.after_test_epoch(None)
    with pytest.raises(UserError, match=r'3 images were routed \[6\] times'):
        hook.draw(0)


def test_attention_of_a_single_expert_is_audited(alike, digits):
    attention = {'model.backbone.downsample_cfg.conv_cfg': dict(_delete_=True, type='ODConv', num_experts=1)}
    cfg, checkpoint = alike('yolo11n_dynconv-bn_digits.py', **attention, **on(digits, 'attention'))
    found = stability(cfg, checkpoint, number=4)
    assert all(layer.spread > 0 for layer in found.values())
    assert len(found) == 6
