"""ODConv and FDConv: equal to plain loops, forward and backward; parameters by formula; folding, upcycling, export."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from mmdyn.layers import (
    DynamicConv,
    FDConv,
    ODConv,
    export_form,
    fold_batch_norms,
    fold_scale,
    global_mean,
    upcycle_conv,
)
from mmdyn.layers.fdconv import frequency_bands

# in, out, kernel, stride, padding, dilation, groups
GEOMETRIES = {
    'k3-stride2': (4, 6, 3, 2, 1, 1, 1),
    'k1': (4, 6, 1, 1, 0, 1, 1),
    'k3-dilation2-groups2': (4, 6, 3, 1, 2, 2, 2),
    'depthwise': (4, 4, 3, 1, 1, 1, 4),
    'k1x3': (4, 6, (1, 3), 1, (0, 1), 1, 1),
}
LAYERS = {
    'odconv1': (ODConv, dict(num_experts=1, hidden=3)),
    'odconv3': (ODConv, dict(num_experts=3, hidden=3, temperature=2.0)),
    'odconv1-bias': (ODConv, dict(num_experts=1, hidden=3, bias=True)),
    'odconv3-bias-normalised': (ODConv, dict(num_experts=3, hidden=3, bias=True, normalise=True)),
    'fdconv3': (FDConv, dict(num_experts=3)),
    'fdconv2-softmax': (FDConv, dict(num_experts=2, router='softmax')),
}


def build(kind, geometry='k3-stride2'):
    layer_type, options = LAYERS[kind]
    layer = layer_type(*GEOMETRIES[geometry], **options).double()
    layer(images(16))  # for running statistics
    return layer.eval()


def images(batch, size=(7, 6)):
    return 1 + torch.randn(batch, 4, *size, dtype=torch.float64)


def plain(layer: DynamicConv, x):
    """The definition: a kernel of its own for every sample, and one convolution each."""
    outputs = []
    for sample in x.split(1):
        pooled = sample.mean((2, 3))
        if isinstance(layer, ODConv):
            features = layer.gates.features(pooled)
            scales = ((features @ layer.gates.weight.T + layer.gates.bias) / layer.gates.temperature).sigmoid()[0]
            inputs, filters, _ = layer.gates.sizes
            channel, scale = scales[:inputs], scales[inputs : inputs + filters] if filters else torch.ones(1)
            taps = scales[inputs + filters :] if layer.gates.sizes[2] else torch.ones(1)
            weights = torch.ones(1) if layer.router is None else layer.router(features)[0]
        else:
            weights = layer.router(pooled)[0]
            channel = scale = taps = torch.ones(1)
        kernel = sum(w * e for w, e in zip(weights, layer.experts, strict=True))
        per_group = layer.out_channels // layer.groups
        wide = channel.expand(layer.in_channels).view(layer.groups, -1).repeat_interleave(per_group, 0)
        kernel = kernel * wide[:, :, None, None] * scale.view(-1, 1, 1, 1)
        kernel = kernel * (taps.view(layer.kernel_size) if taps.numel() > 1 else taps)
        bias = None if layer.bias is None else sum(w * b for w, b in zip(weights, layer.bias, strict=True))
        outputs.append(F.conv2d(sample, kernel, bias, layer.stride, layer.padding, layer.dilation, layer.groups))
    return torch.cat(outputs)


@pytest.mark.parametrize('geometry', GEOMETRIES)
@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('batch', [1, 3])
def test_equals_the_plain_loop_forward_and_backward(kind, geometry, batch):
    layer, x = build(kind, geometry), images(batch).requires_grad_()
    y, expected = layer(x), plain(layer, x)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    cotangent, inputs = torch.randn_like(y), [x, *layer.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('kind', LAYERS)
def test_gradcheck(kind):
    layer = build(kind)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (images(2, (3, 3)).requires_grad_(), *layer.parameters()))


@pytest.mark.parametrize('large', [True, False])
def test_gradients_of_taps_where_kernels_are_not_kept(large, monkeypatch):
    if large:
        monkeypatch.setattr('mmdyn.layers.execution.KEPT_BYTES', 0)
    layer, x = build('odconv3'), images(5).requires_grad_()
    grads = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()], create_graph=True)
    expected = torch.autograd.grad(plain(layer, x).square().sum(), [x, *layer.parameters()], create_graph=True)
    second, wanted = (torch.autograd.grad(sum(g.square().sum() for g in each), x)[0] for each in (grads, expected))
    torch.testing.assert_close(second, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
def test_a_sample_does_not_see_its_batch_and_keeps_its_format(kind, memory_format):
    layer, x = build(kind), images(4).to(memory_format=memory_format)
    together = layer(x)
    assert together.is_contiguous(memory_format=memory_format)
    for n in range(4):
        torch.testing.assert_close(together[n : n + 1], layer(x[n : n + 1]), rtol=1e-12, atol=1e-12)
    assert layer(x[:0]).shape == (0, *together.shape[1:])


@pytest.mark.parametrize(('experts', 'hidden', 'features'), [(1, 1 / 16, 16), (4, 1 / 16, 16), (4, 24, 24)])
def test_parameters_of_odconv_by_formula(experts, hidden, features):
    layer = ODConv(64, 128, 3, num_experts=experts, hidden=hidden)
    kernels = experts * 64 * 128 * 9
    attention = 64 * features + (features + 1) * (64 + 128 + 9)
    router = (features + 1) * experts if experts > 1 else 0
    assert sum(p.numel() for p in layer.parameters()) == kernels + attention + router


def test_parameters_of_fdconv_are_those_of_a_static_convolution_and_the_router():
    assert sum(p.numel() for p in FDConv(64, 128, 3).parameters()) == 64 * 128 * 9 + 64 * 4 + 4


@pytest.mark.parametrize(('height', 'width'), [(6, 12), (9, 9), (18, 3), (1, 8)])
@pytest.mark.parametrize('number', [1, 2, 3])
def test_bands_share_the_frequencies_from_low_to_high(height, width, number):
    numbers = frequency_bands(height, width, number)
    assert numbers.shape == (height, width // 2 + 1)
    bands = torch.stack([numbers == m for m in range(number)]).double()
    plane = torch.randn(height, width, dtype=torch.float64)
    parts = torch.fft.irfft2(torch.fft.rfft2(plane) * bands, s=(height, width))
    torch.testing.assert_close(parts.sum(0), plane)
    for a in range(number):  # of a real plane, disjoint bands are orthogonal
        for b in range(a):
            assert abs(float((parts[a] * parts[b]).sum())) < 1e-12
    assert numbers[0, 0] == 0
    magnitude = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    highest = [float(magnitude[numbers == m].max()) for m in range(number)]
    assert highest == sorted(highest)
    assert all(float(magnitude[numbers == m].min()) > highest[m - 1] for m in range(1, number))
    assert all(band.sum() >= 0.1 * bands.sum() / number for band in bands)


def test_a_new_router_gives_the_kernel_of_fdconv():
    layer = FDConv(4, 6, 3, num_experts=4).double()
    kernel = torch.einsum('m,m...->...', torch.full((4,), 0.5, dtype=torch.float64), layer.experts)
    torch.testing.assert_close(kernel.flatten(), layer.weight[0])


def test_fdconv_in_evaluation_follows_its_kernel_however_it_is_written():
    layer, x = build('fdconv3'), images(2)
    with torch.inference_mode():
        before = layer(x)
    layer.weight.data.mul_(2)  # as hooks that swap in averaged weights do
    with torch.no_grad():
        torch.testing.assert_close(layer(x), 2 * before)
    stacked = torch.vmap(lambda w: torch.func.functional_call(layer, {'weight': w}, (x,)))(
        torch.stack([layer.weight] * 2)
    )
    torch.testing.assert_close(stacked[1], 2 * before)
    assert type(fold_batch_norms(layer)) is DynamicConv
    with torch.device('meta'):
        assert FDConv(4, 6, 3).bands.is_meta


@pytest.mark.parametrize('kind', LAYERS)
def test_batch_norm_and_scale_fold(kind):
    norm = nn.BatchNorm2d(6).double()
    model = nn.Sequential(build(kind), norm)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x, scale = images(3), torch.rand(4, dtype=torch.float64) + 0.5
    expected = model.eval()(x)
    folded = fold_batch_norms(copy.deepcopy(model))
    assert isinstance(folded[1], nn.Identity)
    assert not isinstance(folded[0], FDConv)
    torch.testing.assert_close(folded(x), expected, rtol=1e-11, atol=1e-11)
    layer = model[0]
    torch.testing.assert_close(fold_scale(scale, layer)(x), layer(x * scale[:, None, None]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('kind', LAYERS)
def test_upcycling_preserves_the_function_and_all_of_it_learns(kind):
    layer = build(kind).train()
    static = nn.Conv2d(4, 6, 3, 2, 1, bias=layer.bias is not None).double()
    upcycle_conv(layer, static.weight, static.bias)
    x = images(4)
    torch.testing.assert_close(layer(x), static(x), rtol=1e-11, atol=1e-11)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(2):  # the features learn as soon as what uses them is not zero
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize('kind', LAYERS)
def test_exported_graph_takes_any_batch_and_has_no_fourier_transform(kind):
    layer = fold_batch_norms(nn.Sequential(build(kind).float()).eval())
    batch = torch.export.Dim('batch', min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(layer, (images(4).float(),), dynamic_shapes=({0: batch},))
        assert 'fft' not in str(program.graph)
        for number in (2, 7):
            x = images(number).float()
            torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('form', ['mixed_outputs', 'mixed_inputs'])
def test_forms_with_constant_kernels_refuse_taps(form):
    with torch.no_grad(), export_form(form), pytest.raises(Exception, match='taps depend on the image cannot be const'):
        torch.export.export(build('odconv3').float(), (images(4).float(),))


@pytest.mark.parametrize('kind', ['odconv3', 'fdconv3'])
def test_compiled_it_is_the_same_forward_and_backward(kind):
    layer, x = build(kind).float(), images(3).float().requires_grad_()
    fast = torch.compile(layer, backend='aot_eager', dynamic=True)
    inputs = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x).square().sum(), inputs)
    for ours, theirs in zip(torch.autograd.grad(fast(x).square().sum(), inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_attention_computes_in_float32_under_autocast():
    layer = ODConv(4, 6, 3, num_experts=2)
    x = torch.randn(2, 4, 6, 6).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        attention = layer.attend(global_mean(x)[1])
        assert {t.dtype for t in attention} == {torch.float32}
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: ODConv(4, 6, 3, hidden=0), 'hidden must be at least 1'),
        (lambda: ODConv(4, 6, 3, temperature=0.0), 'temperature must be positive, got 0.0'),
        (lambda: ODConv(4, 6, 3, groups=3), 'groups=3 must divide in_channels=4 and out_channels=6'),
        (lambda: ODConv(4, 6, 3)(torch.rand(1, 4, 5, 5), torch.ones(1, 4)), 'ODConv routes by itself'),
        (lambda: FDConv(4, 6, 3, bias=True), 'are bands of one kernel, and have no biases'),
        (lambda: FDConv(2, 2, 1, num_experts=9), 'num_experts=9 bands of frequencies need a larger kernel'),
        (lambda: FDConv(4, 6, 3, router=dict(top_k=2)), 'top_k: the bands of FDConv sum to its kernel'),
    ],
)
def test_what_is_wrong_is_said(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Millions of parameters in the table of github.com/OSVAI/ODConv: every convolution of the blocks is ODConv.
PUBLISHED = [('resnet18', 1, 11.94), ('resnet18', 4, 44.90), ('resnet50', 1, 28.64), ('resnet50', 4, 90.67)]


@pytest.mark.parametrize(('name', 'experts', 'millions'), PUBLISHED)
def test_odconv_has_the_published_number_of_parameters(name, experts, millions):
    with torch.device('meta'):
        model = timm.create_model(name)
        for block in (m for m in model.modules() if isinstance(m, BasicBlock | Bottleneck)):
            for key, conv in [(k, m) for k, m in block.named_children() if isinstance(m, nn.Conv2d)]:
                layer = ODConv(conv.in_channels, conv.out_channels, conv.kernel_size, num_experts=experts)
                setattr(block, key, layer)
    layers = [m for m in model.modules() if isinstance(m, ODConv)]
    norms = sum(2 * m.gates.features.out_channels for m in layers)  # of their attention
    assert round((sum(p.numel() for p in model.parameters()) + norms) / 1e6, 2) == millions
