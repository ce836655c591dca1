"""How a dynamic convolution is run: every way equals the plain loop, in every format, precision and tool."""

import copy
import importlib
import itertools
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from timm.layers import BatchNormAct2d, StdConv2d
from torch import nn

from mmdyn import DynamicConv, dynamic_conv2d
from mmdyn.layers import execution, fold_batch_norm, fold_batch_norms, fold_scale, global_mean
from mmdyn.layers.execution import Geometry, choose_strategy
from plain_loop import plain_loop

FORMATS = [
    pytest.param(torch.contiguous_format, id='nchw'),
    pytest.param(torch.channels_last, id='nhwc'),
]
# The way it goes in channels-last, then in, out, kernel, stride, padding, dilation, groups, (height, width), batch.
WAYS = [
    ('per_sample', 4, 6, 3, 1, 1, 1, 1, (15, 17), 1),
    ('per_sample', 4, 6, 3, 1, 1, 1, 1, (15, 17), 2),
    ('per_sample', 4, 6, 3, 2, 1, 1, 1, (31, 30), 5),
    ('per_sample', 6, 4, 3, 1, 2, 2, 2, (15, 16), 3),
    ('per_sample', 4, 6, 1, 1, 0, 1, 1, (15, 15), 3),
    ('per_sample', 4, 6, (1, 3), (1, 2), (0, 1), 1, 1, (20, 29), 5),
    ('grouped', 4, 6, 3, 1, 1, 1, 1, (7, 9), 2),
    ('grouped', 4, 6, 3, 2, 1, 1, 1, (9, 7), 5),
    ('grouped', 6, 6, 3, 2, 1, 1, 6, (6, 7), 3),
    ('grouped', 4, 6, 1, 2, 0, 1, 1, (9, 9), 2),
    ('matmul', 4, 6, 1, 1, 0, 1, 1, (5, 7), 2),
    ('matmul', 4, 6, 1, 1, 0, 1, 1, (14, 14), 5),
    ('matmul', 4, 1, 1, 1, 0, 1, 1, (6, 6), 3),
    ('matmul', 1, 4, 1, 1, 0, 1, 1, (6, 6), 3),
    ('grouped', 4, 6, 3, 1, 1, 1, 1, (1, 1), 3),
]


def ids(way):
    return f'{way[0]}-{way[1]}-{way[2]}-k{way[3]}-s{way[4]}-d{way[6]}-g{way[7]}-{way[8]}-b{way[9]}'.replace(' ', '')


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def tensors(way, memory_format, dtype=torch.float64, experts=3):
    _, i, o, k, *_, groups, size, batch = way
    x = torch.randn(batch, i, *size).to(dtype).to(memory_format=memory_format).requires_grad_()
    w = torch.randn(experts, o, i // groups, *pair(k)).to(dtype).requires_grad_()
    r = torch.rand(batch, experts).to(dtype).requires_grad_()
    b = torch.randn(experts, o).to(dtype).requires_grad_()
    return x, w, r, b


def name_of(way, memory_format, dtype=torch.float64, backward=False):
    x, w, _, _ = tensors(way, memory_format, dtype)
    _, _, _, _, s, p, d, g, *_ = way
    return choose_strategy(x, w.shape[1:], Geometry(pair(s), pair(p), pair(d), g), backward)[0].name


@pytest.mark.parametrize('kept', [False, True], ids=['mixed-again', 'kept'])
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('way', WAYS, ids=ids)
def test_every_way_equals_the_plain_loop(way, memory_format, kept, monkeypatch):
    monkeypatch.setattr(execution, 'KEPT_BYTES', 1 << 30 if kept else 0)
    inputs = tensors(way, memory_format)
    sliding = way[4:8]
    plain = memory_format is torch.contiguous_format
    assert name_of(way, memory_format) == ('grouped' if plain and way[0] == 'per_sample' and way[9] > 1 else way[0])
    y, expected = dynamic_conv2d(*inputs, *sliding), plain_loop(*inputs, *sliding)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert y.is_contiguous(memory_format=memory_format) or way[1] == 1  # one channel lies either way
    cotangent = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad(out, inputs, cotangent) for out in (y, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    if not kept:  # else PyTorch's own gradient may undo the fold into groups in the plain layout
        assert ours[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('way', [w for w in WAYS if w[9] == 2], ids=ids)
def test_backward_can_be_differentiated(way, memory_format):
    way = (*way[:8], (3, 3) if way[0] != 'per_sample' else way[8], 2)
    *inputs, b = tensors(way, memory_format, experts=2)
    sliding = way[4:8]
    if way[0] == 'per_sample':  # too large for numerical differentiation: compare with the loop's second derivative
        values = []
        for function in (dynamic_conv2d, plain_loop):
            y = function(*inputs, b, *sliding).pow(3).sum()
            first = torch.autograd.grad(y, inputs, create_graph=True)
            values.append(torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs))
        for ours, theirs in zip(*values, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-8)
    else:
        assert torch.autograd.gradgradcheck(lambda *t: dynamic_conv2d(*t, b.detach(), *sliding), inputs)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('way', [*WAYS, ('matmul', 8, 6, 1, 1, 0, 1, 1, (20, 20), 3)], ids=ids)
def test_bf16_is_as_close_as_bf16_can_be(way, memory_format):
    half = [t.detach().requires_grad_() for t in tensors(way, memory_format, torch.bfloat16)]
    exact = [t.detach().double().requires_grad_() for t in half]
    y, expected = dynamic_conv2d(*half, *way[4:8]), plain_loop(*exact, *way[4:8])
    cotangent = torch.randn_like(y)
    ours = (y, *torch.autograd.grad(y, half, cotangent))
    theirs = (expected, *torch.autograd.grad(expected, exact, cotangent.double()))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.double() - b).abs().max() <= 2**-6 * b.abs().max()  # kernels, products and sums: 2 ** -9 each


NCHW, NHWC = torch.contiguous_format, torch.channels_last


@pytest.mark.parametrize(
    ('arguments', 'memory_format', 'dtype', 'forward', 'backward'),
    [
        ((4, 6, 1, 1, 0, 1, 1, (20, 20), 2), NHWC, torch.float32, 'per_sample', 'per_sample'),
        ((4, 6, 1, 1, 0, 1, 1, (20, 20), 2), NHWC, torch.bfloat16, 'matmul', 'matmul'),
        ((4, 6, 1, 1, 0, 1, 1, (20, 20), 2), NCHW, torch.float32, 'grouped', 'grouped'),
        ((4, 6, 1, 2, 0, 1, 1, (40, 40), 2), NHWC, torch.bfloat16, 'per_sample', 'per_sample'),
        ((4, 6, 3, 1, 1, 1, 1, (14, 14), 2), NHWC, torch.float32, 'grouped', 'grouped'),
        ((4, 6, 3, 1, 1, 1, 1, (14, 15), 2), NHWC, torch.float32, 'per_sample', 'per_sample'),
        ((4, 6, 3, 2, 1, 1, 1, (14, 14), 2), NHWC, torch.float32, 'grouped', 'per_sample'),
        ((4, 6, 3, 2, 1, 1, 1, (40, 40), 2), NCHW, torch.float32, 'grouped', 'per_sample'),
        ((4, 6, 3, 2, 1, 1, 1, (14, 14), 1), NCHW, torch.float32, 'per_sample', 'per_sample'),
        ((6, 6, 3, 2, 1, 1, 6, (40, 40), 2), NCHW, torch.float32, 'grouped', 'grouped'),
        ((6, 6, 3, 2, 1, 1, 6, (40, 40), 2), NHWC, torch.float32, 'per_sample', 'per_sample'),
    ],
)
def test_which_way_a_call_goes(arguments, memory_format, dtype, forward, backward):
    way = ('', *arguments)
    assert [name_of(way, memory_format, dtype, b) for b in (False, True)] == [forward, backward]


@pytest.mark.parametrize('frozen', [0, 1, 2], ids=['input', 'experts', 'routing'])
@pytest.mark.parametrize('way', [w for w in WAYS if w[9] == 5], ids=ids)
def test_what_is_frozen_gets_no_gradient(way, frozen):
    inputs = tensors(way, torch.channels_last)
    inputs[frozen].requires_grad_(False)
    free = [t for n, t in enumerate(inputs) if n != frozen]
    ours, theirs = (torch.autograd.grad(f(*inputs, *way[4:8]).sum(), free) for f in (dynamic_conv2d, plain_loop))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('way', WAYS, ids=ids)
@pytest.mark.parametrize('memory_format', FORMATS)
def test_output_may_be_overwritten(way, memory_format):
    inputs = tensors(way, memory_format)
    y = F.silu(dynamic_conv2d(*inputs, *way[4:8]), inplace=True)
    expected = F.silu(plain_loop(*inputs, *way[4:8]))
    torch.testing.assert_close(y, expected)
    for a, b in zip(*(torch.autograd.grad(out.sum(), inputs) for out in (y, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('limit', [0, 8 << 20])
def test_mixed_kernels_are_kept_only_where_small(limit, monkeypatch):
    monkeypatch.setattr(execution, 'KEPT_BYTES', limit)
    layer = DynamicConv(16, 32, 3, 2, 1)
    x = torch.randn(8, 16, 40, 40, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    kernels = len(x) * layer.experts[0].numel()
    inputs, small = x.numel() + layer.weight.numel(), len(x) * (16 + 3 * 4) + layer.router.weight.numel()
    assert inputs <= sum(kept.values()) - (kernels if limit else 0) <= inputs + small
    assert small < kernels / 10


@pytest.mark.parametrize('experts', [2, 4, 8])
@pytest.mark.parametrize('batch', [1, 3, 6])
def test_autocast_is_close_to_float32(experts, batch):
    layer = DynamicConv(8, 16, 3, 2, 1, num_experts=experts, bias=True)
    x = torch.randn(batch, 8, 40, 36).to(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - layer(x)).abs().max() <= 2**-6 * layer(x).abs().max()
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_no_autocast_of_doubles():
    layer = DynamicConv(4, 4, 3).double()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float64
    assert torch.equal(y, layer(x))


SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 16, 4, 6), (1, 4, 9, 6), (2, 1, 4, 4)]


@pytest.fixture(params=['small', 'large'])
def as_map(request, monkeypatch):
    """The mean of a map as of a small one, which is left to PyTorch, and as of a large one."""
    module = importlib.import_module('mmdyn.layers.global_mean')  # its function has its name
    monkeypatch.setattr(module, 'SMALL_TENSOR', 0 if request.param == 'large' else 1 << 30)


@pytest.mark.usefixtures('as_map')
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_global_mean(size, memory_format):
    x = torch.randn(*size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    same, mean = global_mean(x)
    torch.testing.assert_close(mean, x.mean((2, 3)))
    assert torch.equal(same, x)
    assert torch.autograd.gradcheck(global_mean, x)
    assert torch.autograd.gradgradcheck(global_mean, x)
    ours = torch.autograd.grad((same.square().sum() + mean.pow(3).sum()), x)[0]
    theirs = torch.autograd.grad((x.square().sum() + x.mean((2, 3)).pow(3).sum()), x)[0]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures('as_map')
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('grad', [False, True])
def test_global_mean_of_half_precision(size, memory_format, dtype, grad):
    x = torch.rand(*size).to(dtype).to(memory_format=memory_format).requires_grad_(grad)
    _, mean = global_mean(x)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, x.detach().float().mean((2, 3)), rtol=2**-8, atol=0)
    if grad:
        mean.sum().backward()
        torch.testing.assert_close(x.grad.float(), torch.full(size, 1 / (size[2] * size[3])), rtol=2**-7, atol=0)


def test_global_mean_of_a_slice_of_channels_and_of_large_values():
    x = torch.rand(2, 8, 6, 6).bfloat16().to(memory_format=torch.channels_last)
    for part in (x[:, 2:6], x[1:], x[:, :, 1:]):
        torch.testing.assert_close(global_mean(part)[1], part.float().mean((2, 3)), rtol=2**-8, atol=0)
    huge = torch.full((1, 8, 40, 40), 3e4).half()  # its sum is past the range of float16
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(
            global_mean(huge.to(memory_format=memory_format))[1], torch.full((1, 8), 3e4), rtol=1e-3, atol=0
        )


@pytest.fixture
def compile_once():
    """Compile a function, without a compiler of C++; compiling it a second time is an error."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield lambda function: torch.compile(function, backend='aot_eager', dynamic=True, fullgraph=True)
    torch._dynamo.reset()


@pytest.mark.parametrize('way', [w for w in WAYS if w[9] == 5], ids=ids)
@pytest.mark.parametrize('memory_format', FORMATS)
def test_compiles_once_for_all_batches(compile_once, way, memory_format):
    _, i, o, k, s, p, d, g, size, _ = way
    layer = DynamicConv(i, o, k, s, p, d, g, bias=True)
    fast = compile_once(layer)
    for batch in (2, 3, 5, 8):
        x = torch.randn(batch, i, *size).to(memory_format=memory_format).requires_grad_()
        y, expected = fast(x), layer(x)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        wanted = [x, *layer.parameters()]
        cotangent = torch.randn_like(y)
        for a, b in zip(*(torch.autograd.grad(out, wanted, cotangent) for out in (y, expected)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_compiles_under_autocast(compile_once):
    layer = DynamicConv(4, 8, 3, 1, 1)

    def run(x):
        with torch.autocast('cpu', torch.bfloat16):
            return layer(x)

    fast = compile_once(run)
    for batch in (2, 3):
        x = torch.randn(batch, 4, 20, 20)
        torch.testing.assert_close(fast(x), run(x), rtol=2**-7, atol=2**-7)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which('g++') is None, reason='the default backend of torch.compile needs a C++ compiler')
def test_compiles_with_the_default_backend():
    torch._dynamo.reset()
    layer = DynamicConv(4, 8, 3, 2, 1).to(memory_format=torch.channels_last)
    fast = torch.compile(layer, dynamic=True)
    for batch in (2, 5):
        x = torch.randn(batch, 4, 40, 40).to(memory_format=torch.channels_last)
        torch.testing.assert_close(fast(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor')
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('way', [w for w in WAYS if w[9] > 1], ids=ids)
def test_operators_keep_their_contract(way, memory_format):
    x, w, r, b = tensors(way, memory_format, torch.float32)
    sliding = [list(pair(value)) for value in way[4:7]]
    taps = torch.rand(len(x), *w.shape[3:], requires_grad=True)
    for routing, scale in ((r, None), (r.detach().t().contiguous().t().requires_grad_(), taps)):
        inputs = (x.detach(), w, routing, (r @ b).detach().requires_grad_(), *sliding, way[7], scale)
        torch.library.opcheck(torch.ops.mmdyn.dynamic_conv2d.default, inputs)


@pytest.mark.parametrize('size', [8, 40])
@pytest.mark.parametrize('memory_format', FORMATS)
def test_vectorises(size, memory_format):
    layer = DynamicConv(16, 32, 3, 1, 1)
    x = torch.randn(2, 3, 16, size, size, requires_grad=True)
    together = torch.vmap(layer)(x)
    torch.testing.assert_close(together, torch.stack([layer(part) for part in x]), rtol=1e-4, atol=1e-5)
    y = layer(x[0].to(memory_format=memory_format))
    cotangents = torch.randn(2, *y.shape)
    batched = torch.autograd.grad(y, x, cotangents, is_grads_batched=True, retain_graph=True)[0]
    each = [torch.autograd.grad(y, x, c, retain_graph=True)[0] for c in cotangents]
    torch.testing.assert_close(batched, torch.stack(each), rtol=1e-4, atol=1e-4)


def test_copies_and_pickles_after_use():
    layer = DynamicConv(4, 6, 3, bias=True)
    x = torch.randn(2, 4, 20, 20)
    layer(x).sum().backward()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


DISTRIBUTED = """
import copy, sys, torch, torch.distributed as dist
import mmdyn
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
torch.manual_seed(0)
layer = mmdyn.DynamicConv(4, 6, 3, 2, 1)
x = torch.randn(6, 4, 40, 40)
alone = copy.deepcopy(layer)
together = torch.nn.parallel.DistributedDataParallel(layer)
together(x[rank::2]).square().sum().backward()
(alone(x).square().sum() / 2).backward()
for a, b in zip(layer.parameters(), alone.parameters()):
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-3)
dist.destroy_process_group()
print('equal')
"""


@pytest.mark.processes
def test_two_processes_learn_what_one_does(run, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda rank: run('-c', DISTRIBUTED, rank, tmp_path, env={'OMP_NUM_THREADS': '1'}), (0, 1)))
    assert [r.stdout.strip() for r in runs] == ['equal', 'equal'], runs[0].stderr[-2000:] + runs[1].stderr[-2000:]


def randomise(norm):
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 2)


@pytest.mark.filterwarnings('ignore:Unnecessary conv bias')
@pytest.mark.parametrize('routing', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('memory_format', FORMATS)
def test_batch_norm_folds_exactly(routing, bias, memory_format):
    conv = dict(type='mmdyn.DynamicConv', routing=routing)
    block = ConvModule(4, 6, 3, padding=1, bias=bias, conv_cfg=conv, norm_cfg=dict(type='BN')).double().eval()
    randomise(block.bn)
    for batch, size in ((1, 20), (3, 20), (3, 5)):
        x = torch.randn(batch, 4, size, size, dtype=torch.float64).to(memory_format=memory_format)
        folded = fold_batch_norms(copy.deepcopy(block))
        assert isinstance(folded.bn, nn.Identity)
        torch.testing.assert_close(folded(x), block(x), rtol=1e-12, atol=1e-12)
    twice = fold_batch_norm(folded.conv, block.bn)
    torch.testing.assert_close(twice(x), block.bn(block.bn(block.conv(x))), rtol=1e-12, atol=1e-12)
    assert 'shared_bias=True' in repr(twice)


@pytest.mark.parametrize('routing', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('groups', [1, 2])
def test_a_scale_before_it_folds_exactly(groups, routing):
    conv = DynamicConv(4, 6, 3, 2, 1, groups=groups, bias=True, routing=routing).double()
    scale, x = torch.randn(4, dtype=torch.float64), torch.randn(3, 4, 9, 9, dtype=torch.float64)
    folded = fold_scale(scale, conv)
    torch.testing.assert_close(folded(x), conv(scale[:, None, None] * x), rtol=1e-12, atol=1e-12)
    assert not torch.equal(folded.weight, conv.weight)
    with pytest.raises(ValueError, match=r'scale of shape \(3,\) before a convolution of 4 channels'):
        fold_scale(scale[:3], conv)


def test_folding_leaves_alone_what_does_not_follow_a_convolution():
    before = ConvModule(4, 4, 3, padding=1, norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act'))
    chain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), DynamicConv(4, 4, 1), nn.BatchNorm2d(4))
    assert_folds(nn.Sequential(before, chain, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), left=2)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class SharedConv(nn.Module):
    """A head that norms every level on its own after a convolution that they share, as RTMDet's does."""

    def __init__(self):
        super().__init__()
        conv = DynamicConv(4, 4, 3, padding=1)
        self.levels = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(4)) for _ in range(2))

    def forward(self, x):
        return self.levels[0](x) + 2 * self.levels[1](x)


def repeated():
    conv, act = DynamicConv(4, 4, 3, padding=1), nn.ReLU()
    return {
        'a convolution twice': (nn.Sequential(conv, nn.BatchNorm2d(4), act, conv, nn.BatchNorm2d(4)), 0),
        'an activation twice': (
            nn.Sequential(nn.Conv2d(4, 4, 1), act, DynamicConv(4, 4, 1), act, nn.BatchNorm2d(4)),
            1,
        ),
        'a shared convolution': (SharedConv(), 0),
        'norm and activation in one': (nn.Sequential(nn.Conv2d(4, 4, 1), BatchNormAct2d(4)), 1),
        'standardised weights': (nn.Sequential(StdConv2d(4, 4, 1), nn.BatchNorm2d(4)), 1),
        'a forward of its own': (nn.Sequential(Residual(DynamicConv(4, 4, 1), nn.BatchNorm2d(4))), 1),
    }


@pytest.mark.parametrize('name', repeated())
def test_folding_is_exact_or_left_alone(name):
    assert_folds(*repeated()[name])


def assert_folds(model, left):
    model = model.double().eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            randomise(norm)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = model(x)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fold_batch_norms(model).modules()) == left
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_a_folded_model_loads_what_a_folded_model_saved():
    def make():
        return nn.Sequential(DynamicConv(4, 4, 3, padding=1), nn.BatchNorm2d(4)).eval()

    model = make()
    randomise(model[1])
    folded, fresh = fold_batch_norms(copy.deepcopy(model)), fold_batch_norms(make())
    fresh.load_state_dict(folded.state_dict())
    x = torch.randn(2, 4, 20, 20)
    torch.testing.assert_close(fresh(x), model(x), rtol=1e-5, atol=1e-5)


def test_folding_says_what_it_cannot_do():
    conv = DynamicConv(4, 4, 1).eval()
    with pytest.raises(ValueError, match='eval mode only'):
        fold_batch_norms(nn.Sequential(DynamicConv(4, 4, 1), nn.BatchNorm2d(4)))
    with pytest.raises(ValueError, match='eval mode only'):
        fold_batch_norm(conv, nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match='without running statistics'):
        fold_batch_norm(conv, nn.BatchNorm2d(4, track_running_stats=False).eval())
    with pytest.raises(ValueError, match='batch norm of 6 channels after a convolution to 4'):
        fold_batch_norm(conv, nn.BatchNorm2d(6).eval())


def test_every_call_has_a_strategy():
    for flags in itertools.product((False, True), repeat=6):
        for batch, positions in itertools.product((1, 2), (1, 10_000)):
            last, half, pointwise, depthwise, strided, backward = flags
            call = execution.Call('cpu', batch, last, half, pointwise, depthwise, strided, positions, backward)
            assert execution.STRATEGIES[-1].fits(call)
