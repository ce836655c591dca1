"""DynamicConv: the laws of a mixture of experts, each over a grid of shapes, and its citizenship in MM."""

import copy
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from timm.layers import CondConv2d
from torch import nn

from mmdyn import DynamicConv, dynamic_conv2d
from mmdyn.layers import Router, global_mean
from plain_loop import plain_loop

# in, out, kernel, stride, padding, dilation, groups, (height, width)
GRID = [
    pytest.param(4, 6, 3, 1, 1, 1, 1, (7, 9), id='k3'),
    pytest.param(4, 6, 3, 2, 1, 1, 1, (9, 7), id='k3-stride2-odd'),
    pytest.param(4, 6, 1, 1, 0, 1, 1, (5, 5), id='k1'),
    pytest.param(4, 6, 3, 1, 2, 2, 1, (8, 8), id='k3-dilation2'),
    pytest.param(4, 6, 3, 1, 1, 1, 2, (6, 6), id='k3-groups2'),
    pytest.param(6, 6, 3, 2, 1, 1, 6, (6, 7), id='k3-depthwise'),
    pytest.param(3, 5, (1, 3), (1, 2), (0, 1), 1, 1, (6, 8), id='k1x3'),
    pytest.param(4, 4, 3, 1, 1, 1, 1, (1, 1), id='one-pixel'),
]
BATCHES = (1, 2, 5)


def case(i, o, k, g, size, batch, experts=3, dtype=torch.float64):
    kernel = (k, k) if isinstance(k, int) else k
    x = torch.randn(batch, i, *size, dtype=dtype, requires_grad=True)
    w = torch.randn(experts, o, i // g, *kernel, dtype=dtype, requires_grad=True)
    r = torch.rand(batch, experts, dtype=dtype, requires_grad=True)
    b = torch.randn(experts, o, dtype=dtype, requires_grad=True)
    return x, w, r, b


@pytest.mark.parametrize(('i', 'o', 'k', 's', 'p', 'd', 'g', 'size'), GRID)
@pytest.mark.parametrize('batch', BATCHES)
def test_equals_plain_loop_forward_and_gradient(i, o, k, s, p, d, g, size, batch):
    inputs = case(i, o, k, g, size, batch)
    y = dynamic_conv2d(*inputs, s, p, d, g)
    expected = plain_loop(*inputs, s, p, d, g)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(('i', 'o', 'k', 's', 'p', 'd', 'g', 'size'), GRID)
def test_gradcheck(i, o, k, s, p, d, g, size):
    inputs = case(i, o, k, g, size, batch=2, experts=2)
    assert torch.autograd.gradcheck(lambda *t: dynamic_conv2d(*t, s, p, d, g), inputs)


@pytest.mark.parametrize(('i', 'o', 'k', 's', 'p', 'd', 'g', 'size'), GRID)
def test_one_expert_with_full_weight_is_conv2d(i, o, k, s, p, d, g, size):
    x, w, _, b = case(i, o, k, g, size, batch=3, experts=1)
    y = dynamic_conv2d(x, w, torch.ones(3, 1, dtype=x.dtype), b, s, p, d, g)
    torch.testing.assert_close(y, F.conv2d(x, w[0], b[0], s, p, d, g), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('i', 'o', 'k', 's', 'p', 'd', 'g', 'size'), GRID)
def test_identical_experts_see_only_the_sum_of_the_routing(i, o, k, s, p, d, g, size):
    x, w, r, _ = case(i, o, k, g, size, batch=3)
    same = w[:1].expand_as(w)
    y = dynamic_conv2d(x, same, r, None, s, p, d, g)
    expected = F.conv2d(x, w[0], None, s, p, d, g) * r.sum(1)[:, None, None, None]
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(('i', 'o', 'k', 's', 'p', 'd', 'g', 'size'), GRID)
def test_one_hot_routing_picks_its_expert(i, o, k, s, p, d, g, size):
    x, w, _, b = case(i, o, k, g, size, batch=3)
    picks = [2, 0, 1]
    y = dynamic_conv2d(x, w, torch.eye(3, dtype=x.dtype)[picks], b, s, p, d, g)
    expected = torch.cat([F.conv2d(x[n : n + 1], w[m], b[m], s, p, d, g) for n, m in enumerate(picks)])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('i', 'o', 'k', 's', 'p', 'd', 'g', 'size'), GRID)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
def test_a_sample_does_not_see_its_batch(i, o, k, s, p, d, g, size, memory_format):
    layer = DynamicConv(i, o, k, s, p, d, g, bias=True).double()
    x = torch.randn(4, i, *size, dtype=torch.float64).to(memory_format=memory_format)
    together = layer(x)
    for n in range(len(x)):
        torch.testing.assert_close(together[n : n + 1], layer(x[n : n + 1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('batch', BATCHES)
def test_channels_last_in_channels_last_out(batch):
    layer = DynamicConv(8, 16, 3, 2, 1)
    x = torch.randn(batch, 8, 12, 10)
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, layer(x), rtol=1e-5, atol=1e-5)


def test_empty_batch():
    layer = DynamicConv(4, 6, 3, 2, 1)
    assert layer(torch.randn(0, 4, 8, 8)).shape == (0, 6, 4, 4)


@pytest.mark.parametrize('bias', [False, True])
def test_is_timms_condconv_with_the_router_inside(bias):
    ours = DynamicConv(4, 6, 3, 2, 1, bias=bias, num_experts=3)
    theirs = CondConv2d(4, 6, 3, 2, 1, bias=bias, num_experts=3)
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith('router.')}
    assert set(ours.state_dict()) - set(state) == {'router.weight', 'router.bias'}
    theirs.load_state_dict(state)
    x = torch.randn(5, 4, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x, ours.router(x.mean((2, 3)))), rtol=1e-5, atol=1e-5)


def test_former_names_of_the_router_are_accepted():
    """In configs the arguments ``routing`` and ``temperature``, in checkpoints the prefix ``routing``."""
    for former, now in (
        (dict(routing='softmax', temperature=3.0), dict(activation='softmax', temperature=3.0)),
        (dict(routing='softmax'), 'softmax'),
        (dict(temperature=2.0), dict(temperature=2.0)),
    ):
        assert repr(DynamicConv(4, 6, 3, **former).router) == repr(DynamicConv(4, 6, 3, router=now).router)
    model, other = (nn.Sequential(nn.Sequential(DynamicConv(4, 6, 3, bias=True))) for _ in range(2))
    former = {k.replace('.router.', '.routing.'): v for k, v in model.state_dict().items()}
    assert '0.0.routing.weight' in former
    other.load_state_dict(former)
    assert '0.0.routing.weight' in former  # what was given stays as it is
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(model(x), other(x))


def test_tools_that_replace_linear_layers_leave_the_router_alone():
    layer = DynamicConv(4, 6, 3)
    assert not [m for m in layer.modules() if isinstance(m, nn.Linear)]
    torch.manual_seed(3)
    linear = nn.Linear(4, 4)
    torch.manual_seed(3)
    router = Router(4, 4)
    assert torch.equal(router.weight, linear.weight)
    assert torch.equal(router.bias, linear.bias)


def test_initialisation_is_that_of_every_expert_alone():
    layer = DynamicConv(64, 128, 3, num_experts=4)
    bound = 1 / math.sqrt(64 * 9)  # kaiming-uniform with a = sqrt(5), as nn.Conv2d
    for expert in layer.experts:
        assert expert.abs().max() <= bound
        assert expert.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    before = layer.weight.clone()
    layer.init_weights()
    assert not torch.equal(before, layer.weight)
    assert layer.weight.abs().max() <= bound


def test_every_parameter_gets_a_gradient():
    layer = DynamicConv(4, 6, 3, bias=True)
    layer(torch.randn(2, 4, 6, 6)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('temperature', [0.5, 1.0, 30.0])
def test_routing(kind, temperature):
    routing = Router(8, 4, kind, temperature)
    x = torch.randn(3, 8)
    logits = F.linear(x, routing.weight, routing.bias) / temperature
    expected = {'sigmoid': logits.sigmoid(), 'softmax': logits.softmax(-1)}[kind]
    torch.testing.assert_close(routing(x), expected)
    if kind == 'softmax':
        torch.testing.assert_close(routing(x).sum(1), torch.ones(3))


def test_router_computes_in_float32_under_autocast():
    layer = DynamicConv(8, 8, 3, 1, 1)
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast('cpu', torch.bfloat16):
        half = x.bfloat16()
        _, pooled = global_mean(half)
        assert pooled.dtype == layer.router(pooled).dtype == torch.float32
        torch.testing.assert_close(layer.router(pooled), layer.router(half.float().mean((2, 3))))
        assert layer(half).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(num_experts=0), 'num_experts must be at least 1, got 0'),
        (dict(groups=0), 'groups must be at least 1, got 0'),
        (dict(groups=3), 'groups=3 must divide in_channels=4 and out_channels=6'),
        (dict(groups=4), 'groups=4 must divide in_channels=4 and out_channels=6'),
        (dict(stride=0), 'stride must be at least 1, got 0'),
        (dict(router='hard'), "router activation must be one of \\['sigmoid', 'softmax'\\], got 'hard'"),
        (dict(temperature=0.0), 'temperature must be positive, got 0.0'),
    ],
    ids=lambda v: v if isinstance(v, str) else '-'.join(v),
)
def test_constructor_says_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DynamicConv(4, 6, 3, **kwargs)


def test_routing_of_wrong_shape_is_refused():
    x, w, r, _ = case(4, 6, 3, 1, (5, 5), batch=2)
    with pytest.raises(ValueError, match=r'\(2, 3\), got \(2, 2\)'):
        dynamic_conv2d(x, w, r[:, :2])


@pytest.mark.parametrize('kind', ['DynamicConv', 'mmdyn.DynamicConv'])
def test_is_a_conv_cfg_type(kind):
    from mmengine.registry import DefaultScope

    cfg = dict(type=kind, num_experts=4)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        block = ConvModule(4, 8, 3, stride=2, padding=1, conv_cfg=cfg, norm_cfg=dict(type='BN'))
    assert type(block.conv) is DynamicConv
    assert block.conv.bias is None
    assert block(torch.randn(2, 4, 8, 8)).shape == (2, 8, 4, 4)
    attributes = (
        'in_channels',
        'out_channels',
        'kernel_size',
        'stride',
        'dilation',
        'transposed',
        'output_padding',
        'groups',
    )
    reference = ConvModule(4, 8, 3, stride=2, padding=1, norm_cfg=dict(type='BN'))
    assert all(getattr(block, a) == getattr(reference, a) for a in attributes)
    bound = 1 / math.sqrt(4 * 9)
    assert block.conv.weight.abs().max() <= bound  # ConvModule has not drawn it anew


@pytest.mark.parametrize('scope', ['mmdet', 'mmyolo', 'mmengine'])
def test_scoped_name_resolves_everywhere_and_never_clashes(scope):
    from mmdet.registry import MODELS as MMDET
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        assert ConvModule(4, 4, 1, conv_cfg=dict(type='mmdyn.DynamicConv')).conv.num_experts == 4
    assert MMDET.get('DynamicConv').__module__.startswith('mmdet.')  # that of Sparse R-CNN
    assert 'DynamicConv' not in MODELS.module_dict


def test_copies_and_pickles():
    layer = DynamicConv(4, 6, 3)
    x = torch.randn(2, 4, 6, 6)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
        assert all(a.data_ptr() != b.data_ptr() for a, b in zip(twin.parameters(), layer.parameters(), strict=True))


def test_grid_covers_what_it_should():
    strides, groups, dilations = ({c.values[n] for c in GRID} for n in (3, 6, 5))
    assert {1, 2} <= strides
    assert {1, 2, 6} <= groups
    assert 2 in dilations
    assert any(side % 2 for side in itertools.chain(*(c.values[7] for c in GRID)))


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
def test_batch_norm_folds_into_every_expert(memory_format):
    block = ConvModule(
        4, 6, 3, padding=1, conv_cfg=dict(type='mmdyn.DynamicConv'), norm_cfg=dict(type='BN'), act_cfg=None
    )
    block = block.double().eval()
    for statistic in (block.bn.running_mean, block.bn.running_var, block.bn.weight.data, block.bn.bias.data):
        statistic.uniform_(0.5, 2)
    x = torch.randn(3, 4, 7, 5, dtype=torch.float64).to(memory_format=memory_format)
    expected = block(x)
    scale = block.bn.weight / (block.bn.running_var + block.bn.eps).sqrt()
    shift = block.bn.bias - block.bn.running_mean * scale
    routing = block.conv.router(x.mean((2, 3)))
    folded = dynamic_conv2d(x, block.conv.experts * scale[:, None, None, None], routing, None, 1, 1)
    torch.testing.assert_close(folded + shift[:, None, None], expected, rtol=1e-12, atol=1e-12)


def test_mmcvs_fusion_leaves_the_layer_as_it_is():
    from mmcv.cnn import fuse_conv_bn

    block = ConvModule(4, 6, 3, padding=1, conv_cfg=dict(type='mmdyn.DynamicConv'), norm_cfg=dict(type='BN')).eval()
    block.bn.running_mean.uniform_(-1, 1)
    x = torch.randn(2, 4, 6, 6)
    expected = block(x)
    torch.testing.assert_close(fuse_conv_bn(block)(x), expected)


def test_an_empty_batch_gives_every_parameter_a_gradient_of_zeros():
    """A process without a positive RoI must not leave a parameter out, or the others wait for it."""
    layer = DynamicConv(4, 6, 3, padding=1, bias=True)
    y = layer(torch.rand(0, 4, 5, 5))
    assert y.shape == (0, 6, 5, 5)
    y.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())
