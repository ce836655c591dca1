"""Routers: MLP, standardised features and top-k equal their definitions, and folding and upcycling know them."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmdyn import DynamicConv
from mmdyn.engine.hooks.ema import YOLOEMA
from mmdyn.layers import Router, build_router, fold_batch_norms, fold_scale, upcycle_conv
from mmdyn.layers.running_norm import RunningNorm

ROUTERS = {
    'mlp': dict(type='mlp'),
    'mlp-quarter-softmax': dict(type='mlp', hidden=0.25, activation='softmax', temperature=3.0),
    'normalised': dict(normalise=True),
    'normalised-mlp': dict(type='mlp', hidden=5, normalise=True),
    'top2': dict(top_k=2),
    'uniform': dict(type='uniform'),
    'top1-softmax': dict(activation='softmax', top_k=1),
}


def routed(cfg, in_channels=8, out_channels=6) -> DynamicConv:
    """A layer in float64 whose router has seen images."""
    layer = DynamicConv(in_channels, out_channels, 3, 2, 1, router=cfg).double()
    for _ in range(3):
        layer(5 + torch.randn(16, in_channels, 4, 4, dtype=torch.float64))
    return layer.eval()


@pytest.mark.parametrize('kind', ROUTERS)
def test_gradcheck_and_independence_of_the_batch(kind):
    layer = routed(ROUTERS[kind], 4, 2)
    x = 5 + torch.randn(4, 4, 3, 3, dtype=torch.float64)
    together = layer(x)
    for n in range(len(x)):
        torch.testing.assert_close(together[n : n + 1], layer(x[n : n + 1]), rtol=1e-12, atol=1e-12)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x[:2].requires_grad_(), *parameters))


@pytest.mark.parametrize(('hidden', 'width'), [(None, 8), (5, 5), (0.25, 2), (0.01, 1)])
def test_an_mlp_is_two_linear_layers_and_a_relu(hidden, width):
    router = build_router(dict(type='mlp', **({} if hidden is None else dict(hidden=hidden))), 8, 4)
    x = torch.randn(3, 8)
    expected = F.linear(F.linear(x, router.features.weight).relu(), router.weight, router.bias).sigmoid()
    torch.testing.assert_close(router(x), expected)
    # ParameterNet counts C * C + C * M, without biases
    assert sum(p.numel() for p in router.parameters()) == 8 * width + width * 4 + 4


@pytest.mark.parametrize('batch', [1, 2, 16])
def test_running_statistics_are_those_of_all_images(batch):
    norm = RunningNorm(6, momentum=0.0, eps=0.0).double()
    x = 5 + torch.randn(64, 6, dtype=torch.float64)
    for part in x.split(batch):
        norm(part)
    torch.testing.assert_close(norm.mean, x.mean(0))
    torch.testing.assert_close(norm.var, x.var(0, correction=0))
    before, y = copy.deepcopy(norm.state_dict()), norm.eval()(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(6, dtype=torch.float64), atol=1e-6, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert int(norm.batches) == 64 // batch


def test_in_training_too_a_sample_does_not_see_its_batch():
    norm, x = RunningNorm(6), 5 + torch.randn(8, 6)
    norm(5 + torch.randn(32, 6))
    alone = torch.cat([copy.deepcopy(norm)(sample) for sample in x.split(1)])
    torch.testing.assert_close(norm(x), alone)


@pytest.mark.parametrize('scale', [0.1, 1.0, 1e3])
def test_what_varies_is_amplified_whatever_its_scale_and_what_does_not_is_left(scale):
    x = scale * (1 + torch.randn(256, 3, dtype=torch.float64) * torch.tensor([0.1, 0.01, 1e-6]))
    norm = RunningNorm(3).double()
    norm(x)
    spread = norm.eval()(x).std(0)
    assert spread[0] > 0.99
    assert spread[1] > 0.9
    assert spread[2] < 0.001
    assert RunningNorm(2).eval()(torch.zeros(3, 2)).abs().max() == 0


def test_averaged_weights_have_the_statistics():
    layer = DynamicConv(4, 4, 3, router=dict(normalise=True))
    averaged = YOLOEMA(layer, momentum=0.0001, gamma=20, update_buffers=True)
    for _ in range(200):
        layer(5 + torch.randn(8, 4, 5, 5))
        averaged.update_parameters(layer)
    norm = averaged.module.router.features.norm
    torch.testing.assert_close(norm.mean, torch.full((4,), 5.0), atol=0.2, rtol=0)
    assert norm.batches > 50
    averaged.module.train()(torch.zeros(1, 4, 5, 5))  # one image more moves them by a percent or two
    assert (norm.mean > 4.8).all()


def test_statistics_follow_images_that_change():
    norm = RunningNorm(2, momentum=0.1)
    for _ in range(100):
        norm(torch.randn(32, 2))
    for _ in range(100):
        norm(100 + 3 * torch.randn(32, 2))
    torch.testing.assert_close(norm.mean, torch.full((2,), 100.0), atol=1, rtol=0)
    torch.testing.assert_close(norm.var.sqrt(), torch.full((2,), 3.0), atol=1, rtol=0)


def test_a_norm_that_saw_nothing_is_the_identity():
    x = torch.randn(3, 4)
    torch.testing.assert_close(RunningNorm(4).eval()(x), x)
    torch.testing.assert_close(RunningNorm(4)(x), x)
    assert RunningNorm(4)(torch.zeros(0, 4)).shape == (0, 4)


def test_one_image_at_a_time_trains():
    layer = DynamicConv(4, 4, 3, padding=1, router=dict(normalise=True))
    for _ in range(5):
        layer(torch.randn(1, 4, 5, 5)).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_images_differ_by_order_one_in_normalised_features():
    pooled = 3 + 0.01 * torch.randn(256, 64)
    plain, normalised = Router(64, 4), Router(64, 4, normalise=True)
    normalised.weight.data, normalised.bias.data = plain.weight.data, plain.bias.data
    normalised(pooled)
    assert plain(pooled).std(0).mean() < 0.003
    assert normalised.eval()(pooled).std(0).mean() > 0.08


def test_activation_checkpointing_sees_a_batch_once():
    layer = DynamicConv(4, 4, 3, padding=1, router=dict(normalise=True)).double()
    other = copy.deepcopy(layer)
    x = torch.randn(6, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    for each in (layer, other):
        each(1 + x.detach())
    layer(x).square().sum().backward()
    expected, x.grad = x.grad, None
    checkpoint(other, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)
    for (name, a), b in zip(layer.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert int(other.router.features.norm.batches) == 2
    assert pickle.loads(pickle.dumps(other)).router.features.norm._last is None


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('k', [1, 2, 4])
def test_top_k_keeps_the_largest_and_the_sum(activation, k):
    router, every = Router(8, 4, activation, top_k=k), Router(8, 4, activation)
    every.load_state_dict(router.state_dict())
    x = torch.randn(32, 8)
    few, all_of_them = router(x), every(x)
    assert ((few > 0).sum(1) == k).all()
    torch.testing.assert_close(few.sum(1), all_of_them.sum(1))
    kept = all_of_them.sort(dim=1, descending=True).indices[:, :k]
    torch.testing.assert_close(
        few.gather(1, kept) / few.gather(1, kept[:, :1]),
        all_of_them.gather(1, kept) / all_of_them.gather(1, kept[:, :1]),
    )


@pytest.mark.parametrize(('activation', 'weight'), [('sigmoid', 0.5), ('softmax', 0.25)])
def test_uniform_weights_stay_uniform(activation, weight):
    layer = DynamicConv(8, 6, 3, router=dict(type='uniform', activation=activation))
    layer.init_weights()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        layer(torch.randn(4, 8, 5, 5)).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.router(torch.randn(5, 8)), torch.full((5, 4), weight))
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == 4 * 6 * 8 * 9
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('kind', ROUTERS)
def test_folding_keeps_the_outputs(kind):
    model = nn.Sequential(routed(ROUTERS[kind]), nn.BatchNorm2d(6).double()).eval()
    x = 5 + torch.randn(4, 8, 9, 7, dtype=torch.float64)
    expected = model(x)
    folded = fold_batch_norms(copy.deepcopy(model))
    torch.testing.assert_close(folded(x), expected, rtol=1e-11, atol=1e-11)
    assert not [name for name, _ in folded.named_buffers() if 'norm' in name]


@pytest.mark.parametrize('kind', ROUTERS)
def test_scale_of_the_input_folds(kind):
    layer, scale = routed(ROUTERS[kind]), torch.rand(8, dtype=torch.float64) + 0.5
    x = 5 + torch.randn(4, 8, 9, 7, dtype=torch.float64)
    expected = layer(x * scale[:, None, None])
    torch.testing.assert_close(fold_scale(scale, layer)(x), expected, rtol=1e-11, atol=1e-11)


def test_a_norm_is_folded_in_eval_mode_only():
    with pytest.raises(ValueError, match='folded in eval mode only'):
        fold_scale(torch.ones(8), DynamicConv(8, 6, 3, router=dict(normalise=True)))


@pytest.mark.parametrize('kind', ROUTERS)
def test_upcycling_preserves_the_function(kind):
    static = nn.Conv2d(8, 6, 3, 2, 1, bias=False).double()
    layer = routed(ROUTERS[kind])
    upcycle_conv(layer, static.weight)
    x = 5 + torch.randn(4, 8, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), static(x), rtol=1e-11, atol=1e-11)
    layer.train()
    torch.testing.assert_close(layer(x), static(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('kind', ROUTERS)
def test_exported_graph_takes_any_batch(kind):
    layer = routed(ROUTERS[kind]).float()
    batch = torch.export.Dim('batch', min=2, max=64)
    x = 5 + torch.randn(4, 8, 9, 7)
    with torch.no_grad():
        program = torch.export.export(layer, (x,), dynamic_shapes=({0: batch},)).module()
        for number in (2, 7):
            x = 5 + torch.randn(number, 8, 9, 7)
            torch.testing.assert_close(program(x), layer(x), rtol=1e-5, atol=1e-5)


def test_weights_that_underflow_route_to_nothing():
    router = Router(2, 4, top_k=2)
    router.bias.data.fill_(-1000)
    assert torch.equal(router(torch.zeros(1, 2)), torch.zeros(1, 4))


def test_an_mlp_without_a_width_has_that_of_its_input():
    assert build_router(dict(type='mlp', hidden=None), 8, 4).weight.shape == (4, 8)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='mpl'), "unknown router type 'mpl': set one of linear, mlp, uniform"),
        (dict(type='uniform', normalise=True), 'a uniform router has no normalise'),
        (dict(normalize=True), "unknown router key 'normalize': did you mean 'normalise'"),
        (dict(hidden=8), r"hidden=8 is of an MLP: set router=dict\(type='mlp', hidden=…\)"),
        (dict(type='mlp', hidden=0), 'hidden must be at least 1, or a fraction of the channels such as 0.25, got 0'),
        (dict(type='mlp', hidden=-0.5), 'hidden must be at least 1'),
        (dict(type='mlp', hidden='8'), "hidden must be at least 1.*got '8'"),
        (dict(type='mlp', hidden=True), 'hidden must be at least 1.*got True'),
        (dict(normalise='no'), "normalise must be True or False, got 'no'"),
        (dict(temperature=float('nan')), 'temperature must be positive, got nan'),
        (dict(temperature='warm'), "temperature must be positive, got 'warm'"),
        (dict(top_k=2.0), 'top_k of a router must be from 1 to its 4 experts, got 2.0'),
        (5, "invalid router 5: set 'sigmoid', 'softmax' or a dict"),
        (dict(temperature=-1.0), 'temperature must be positive, got -1.0'),
        (dict(top_k=5), 'top_k of a router must be from 1 to its 4 experts, got 5'),
        (dict(top_k=0), 'top_k of a router must be from 1 to its 4 experts, got 0'),
    ],
    ids=str,
)
def test_a_config_says_what_is_wrong(cfg, message):
    with pytest.raises(ValueError, match=message):
        DynamicConv(8, 6, 3, router=cfg)
