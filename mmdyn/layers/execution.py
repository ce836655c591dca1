"""Execution: how a convolution that has its own kernel for every sample is mixed and run.

:func:`mixed_conv2d` is the entry point. The table ``STRATEGIES`` selects the strategy of a call; each row has a forward
and a backward pass, and a comment with times measured on two CPU cores with AVX512-BF16. ``benchmarks/README.md`` has
the whole grid and the alternatives that were dropped. The same table applies on a GPU, where it has not been measured;
a strategy for GPUs is a row that checks ``Call.device``. Exported graphs use a form of ``export_forms.py`` instead.

Autograd would keep the mixed kernels, B * P elements, for the backward pass. Here the backward pass mixes them again,
unless they are small. Mixing is linear, so the order of a kernel's elements does not matter: kernels are mixed in
channels-last order where the convolution needs it, so that none is reordered twice.

Shapes: B batch, M experts, I O in and out channels, g groups, k kernel size, P = O * I/g * k * k, H W height and width.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .export_forms import exported_conv2d
from .geometry import Geometry, Pair

__all__ = ['Geometry', 'Pair', 'mixed_conv2d']

HALF = (torch.bfloat16, torch.float16)
OLD_DYNAMO = tuple(map(int, torch.__version__.split('.')[:2])) < (2, 8)
SMALL_OUTPUT = (
    14 * 14
)  # up to this number of positions, calling one convolution per sample costs more than its arithmetic
KEPT_BYTES = 8 << 20  # up to this size the backward pass reuses a layer's mixed kernels
Gradients = tuple[Tensor | None, Tensor | None]  # of the input and of the kernels, None where not required


class Call(NamedTuple):
    """The properties of a call that select its strategy."""

    device: str
    batch: int
    channels_last: bool
    half: bool  # bf16 or fp16
    pointwise: bool  # a 1x1 kernel that neither strides nor pads, in one group
    depthwise: bool
    strided: bool
    positions: int  # of the output, H * W
    backward: bool


class Strategy(NamedTuple):
    """How a per-sample convolution is run.

    ``forward(x, kernels, bias, geometry)`` convolves (B, I, H, W) with kernels (B, O, I/g, k, k) and adds bias (B, O);
    ``backward(grad, x, kernels, geometry, wanted)`` returns the gradients of x and of kernels, where wanted.
    """

    name: str
    fits: Callable[[Call], bool]
    forward: Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Geometry, tuple[bool, bool]], Gradients]


# Strategies


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of (B, C, H, W) lie next to each other, in a slice of channels too."""
    return x.shape[1] > 1 and x.stride(1) == 1


def _in_format_of(x: Tensor, y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if is_channels_last(x) else y.contiguous()


def _conv_backward(
    grad: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry, groups: int, wanted: tuple[bool, bool]
) -> list[Tensor]:
    stride, padding, dilation, _ = geometry
    return torch.ops.aten.convolution_backward.default(
        grad, x, kernel, None, stride, padding, dilation, False, (0, 0), groups, (*wanted, False)
    )[:2]


def per_sample(x: Tensor, kernels: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One dense convolution per sample."""
    if x.shape[0] == 1:
        return F.conv2d(x, kernels[0], None if bias is None else bias[0], *geometry)
    outputs = [
        F.conv2d(sample, kernel, None if bias is None else bias[b], *geometry)
        for b, (sample, kernel) in enumerate(zip(x.split(1), kernels.unbind(), strict=True))
    ]  # B x (1, O, H', W')
    return torch.cat(outputs)


def per_sample_backward(
    grad: Tensor, x: Tensor, kernels: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> Gradients:
    """Backward of :func:`per_sample`."""
    grad = _in_format_of(x, grad)
    each = [
        _conv_backward(*sample, geometry, geometry.groups, wanted)
        for sample in zip(grad.split(1), x.split(1), kernels.unbind(), strict=True)
    ]
    grad_x = torch.cat([g for g, _ in each]) if wanted[0] else None
    if not wanted[1]:
        return grad_x, None
    if not is_channels_last(x):
        return grad_x, torch.stack([k for _, k in each])
    return grad_x, torch.stack([k.permute(0, 2, 3, 1) for _, k in each]).permute(0, 1, 4, 2, 3)  # channels-last


def _folded(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (1, B * C, H, W), always with plain strides."""
    return x.reshape(-1).view(1, -1, *x.shape[2:])


def grouped(x: Tensor, kernels: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution with the batch folded into groups; copies a channels-last input, and its output back."""
    geometry = geometry._replace(groups=x.shape[0] * geometry.groups)
    y = F.conv2d(_folded(x), kernels.flatten(0, 1), None if bias is None else bias.flatten(), *geometry)
    return _in_format_of(x, y.unflatten(1, (x.shape[0], -1))[0])  # (B, O, H', W')


def grouped_backward(
    grad: Tensor, x: Tensor, kernels: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> Gradients:
    """Backward of :func:`grouped`."""
    grad_x, grad_kernels = _conv_backward(
        _folded(grad), _folded(x), kernels.flatten(0, 1), geometry, x.shape[0] * geometry.groups, wanted
    )
    return (
        _in_format_of(x, grad_x.view(x.shape)) if grad_x is not None else None,
        grad_kernels.view(kernels.shape) if grad_kernels is not None else None,
    )


def _rows(x: Tensor, channels_last: bool) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C), a view where x is dense."""
    return x.permute(0, 2, 3, 1).flatten(1, 2) if channels_last else x.flatten(2).transpose(1, 2)


def _times(weights: Tensor, x: Tensor, channels_last: bool) -> Tensor:
    """(B, O, I) and (B, I, H, W) -> (B, O, H, W), channels-last or plain."""
    if channels_last:
        return torch.bmm(_rows(x, True), weights.transpose(1, 2)).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return torch.bmm(weights, x.flatten(2)).unflatten(2, x.shape[2:])


def matmul(x: Tensor, kernels: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One batched matrix product, for pointwise kernels."""
    y = _times(kernels.flatten(2), x, is_channels_last(x))
    return y if bias is None else y + bias[:, :, None, None]


def matmul_backward(
    grad: Tensor, x: Tensor, kernels: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> Gradients:
    """Backward of :func:`matmul`."""
    last = is_channels_last(x)
    grad = _in_format_of(x, grad)
    grad_x = _times(kernels.flatten(2).transpose(1, 2), grad, last) if wanted[0] else None
    if not wanted[1]:
        return grad_x, None
    return grad_x, torch.bmm(_rows(grad, last).transpose(1, 2), _rows(x, last)).view(kernels.shape)


def _one(call: Call) -> bool:
    return call.batch == 1


def _product(call: Call) -> bool:
    return call.pointwise and (call.half or call.positions <= SMALL_OUTPUT)


def _folds_well(call: Call) -> bool:
    # oneDNN's gradients of a grouped convolution with strides are slow, up to four times static.
    slow = call.backward and call.strided and not call.depthwise
    return not slow and (call.positions <= SMALL_OUTPUT or not call.channels_last)


# The first row that fits is used. Each comment has the time of the loop over samples, then that of the row's strategy,
# both relative to a static convolution.
STRATEGIES = (
    Strategy('per_sample', _one, per_sample, per_sample_backward),
    # 64->256 at 7x7, batch 8, bf16, channels-last: 6.1, 1.0 forward; 5.1, 0.8 backward
    Strategy('matmul', _product, matmul, matmul_backward),
    # 64->64 k3 at 10x10, batch 8, channels-last: 3.3, 1.5; 64->64 k3 at 40x40, batch 32, bf16, plain: 1.5, 1.1
    Strategy('grouped', _folds_well, grouped, grouped_backward),
    # 64->64 k3 s2 at 160x160, batch 8, bf16, channels-last: 1.2; grouped 2.5
    Strategy('per_sample', lambda call: True, per_sample, per_sample_backward),
)


@lru_cache(maxsize=1024)
def _choose(
    device: str,
    shape: torch.Size,
    channels_last: bool,
    half: bool,
    kernel_shape: torch.Size,
    geometry: Geometry,
    backward: bool,
) -> tuple[Strategy, bool]:
    batch, _, *size = shape
    _, width, *kernel_size = kernel_shape
    height_out, width_out = geometry.output_size(size, kernel_size)
    call = Call(
        device=device,
        batch=batch,
        channels_last=channels_last,
        half=half,
        pointwise=kernel_size == [1, 1] and geometry == Geometry((1, 1), (0, 0), geometry.dilation, 1),
        depthwise=width == 1 and geometry.groups > 1,
        strided=max(geometry.stride) > 1,
        positions=height_out * width_out,
        backward=backward,
    )
    strategy = next(strategy for strategy in STRATEGIES if strategy.fits(call))
    return strategy, channels_last and strategy.forward is per_sample


def choose_strategy(
    x: Tensor, kernel_shape: torch.Size, geometry: Geometry, backward: bool = False
) -> tuple[Strategy, bool]:
    """Select the strategy of a call.

    Args:
        x: Input, (B, I, H, W).
        kernel_shape: Shape of one kernel, (O, I/g, k, k).
        geometry: Stride, padding, dilation and groups.
        backward: Select for the backward pass, whose strategy may differ from that of the forward pass.

    Returns:
        The strategy, and whether it needs kernels with the channels innermost.
    """
    return _choose(x.device.type, x.shape, is_channels_last(x), x.dtype in HALF, kernel_shape, geometry, backward)


# Mixing


def _ordered(kernels: Tensor, channels_last: bool) -> Tensor:
    """(N, O, I/g, k, k) -> (N, P) in the order that the convolution needs: channels innermost, or plain."""
    return (kernels.permute(0, 1, 3, 4, 2) if channels_last else kernels).reshape(kernels.shape[0], -1)


def _kernels(ordered: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """Undo :func:`_ordered`, as a view."""
    out_channels, width, height_k, width_k = shape
    if channels_last:
        return ordered.view(-1, out_channels, height_k, width_k, width).permute(0, 1, 4, 2, 3)
    return ordered.view(-1, *shape)


class ReadyExperts(NamedTuple):
    """The experts of a batch, flat; cast and reordered where that costs less.

    With fewer samples than experts, the experts stay unchanged, and the mixed kernels are cast and reordered.
    Otherwise the experts are cast and reordered before mixing.
    """

    flat: Tensor  # (M, P)
    shape: torch.Size  # of a kernel, (O, I/g, k, k)
    dtype: torch.dtype  # of the convolution
    channels_last: bool  # whether the convolution needs kernels with the channels innermost
    ready: bool  # whether cast and reordered


def prepare(experts: Tensor, batch: int, dtype: torch.dtype, channels_last: bool) -> ReadyExperts:
    """Make experts, (M, O, I/g, k, k), ready for a batch."""
    ready = batch >= len(experts)
    flat = _ordered(experts.to(dtype), channels_last) if ready else _ordered(experts, False)
    return ReadyExperts(flat, experts.shape[1:], dtype, channels_last, ready)


def mix(source: ReadyExperts, routing: Tensor, taps: Tensor | None = None) -> Tensor:
    """Kernels of a batch, (B, O, I/g, k, k), in the type of the convolution; ``taps`` (B, k, k) scales their taps."""
    flat, shape, dtype, channels_last, ready = source
    mixed = (routing.to(flat.dtype) @ flat).to(dtype)  # (B, P)
    if ready or not channels_last:
        kernels = _kernels(mixed, shape, channels_last)
    else:
        kernels = _kernels(_ordered(_kernels(mixed, shape, False), True), shape, True)
    return kernels if taps is None else kernels * taps.to(dtype)[:, None, None]


def unmix(grad: Tensor, source: ReadyExperts, routing: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of experts and routing from those of the kernels, (B, O, I/g, k, k), before any scaling of taps."""
    flat, shape, _, channels_last, ready = source
    ordered = _ordered(grad.to(flat.dtype), channels_last and ready)  # (B, P)
    grad_experts = _kernels(routing.to(flat.dtype).t() @ ordered, shape, channels_last and ready).contiguous()
    return grad_experts, (ordered @ flat.t()).to(routing.dtype)


# Forward and backward


def _forward(
    x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry, taps: Tensor | None
) -> tuple[Tensor, Tensor]:
    strategy, channels_last = choose_strategy(x, experts.shape[1:], geometry)
    kernels = mix(prepare(experts, x.shape[0], x.dtype, channels_last), routing, taps)
    return strategy.forward(x, kernels, None if bias is None else bias.to(x.dtype), geometry), kernels


def _backward(
    grad: Tensor,
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    kernels: Tensor | None,
    geometry: Geometry,
    taps: Tensor | None,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    with torch.autocast(x.device.type, enabled=False):
        strategy, channels_last = choose_strategy(x, experts.shape[1:], geometry, backward=True)
        source = prepare(experts, x.shape[0], x.dtype, channels_last)
        kernels = mix(source, routing, taps) if kernels is None else kernels
        grad_x, grad_kernels = strategy.backward(grad, x, kernels, geometry, wanted)
        if grad_kernels is None:
            return grad_x, None, None, None
        grad_taps = None
        if taps is not None:
            grad_taps = (grad_kernels * mix(source, routing)).sum((1, 2), dtype=taps.dtype)  # (B, k, k)
            grad_kernels = grad_kernels * taps.to(grad_kernels.dtype)[:, None, None]
        grad_experts, grad_routing = unmix(grad_kernels, source, routing)
        return grad_x, grad_experts.to(experts.dtype), grad_routing, grad_taps


def _is_small(x: Tensor, experts: Tensor) -> bool:
    """Whether the mixed kernels of a batch may be kept."""
    return x.shape[0] * experts[0].numel() * x.element_size() <= KEPT_BYTES


def _is_plain(x: Tensor, experts: Tensor, geometry: Geometry) -> bool:
    """Whether plain autograd is as fast: kernels are kept, and both passes use the same strategy, which is no loop."""
    shape = experts.shape[1:]
    strategy = choose_strategy(x, shape, geometry)[0]
    return (
        _is_small(x, experts)
        and strategy is choose_strategy(x, shape, geometry, backward=True)[0]
        and (x.shape[0] == 1 or strategy.name != 'per_sample')
    )


class DynamicConvolution(torch.autograd.Function):
    """Saves its inputs, and the mixed kernels if they are small; supports double backward and ``vmap``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry, taps: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """As :func:`mixed_conv2d`, and the kernels to keep."""
        y, kernels = _forward(x, experts, routing, bias, geometry, taps)
        y = torch.ops.aten._unsafe_view(y, y.shape)  # no longer a view: an in-place activation may overwrite it
        return y, kernels if _is_small(x, experts) else None

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Save the inputs, and the mixed kernels if they are kept."""
        x, experts, routing, _, ctx.geometry, taps = inputs
        _, kernels = output
        ctx.save_for_backward(x, experts, routing, kernels, taps)
        if kernels is not None:
            ctx.mark_non_differentiable(kernels)

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        """Gradients of x, experts, routing, bias and taps, computed with differentiable operators."""
        wants_x, wants_experts, wants_routing, wants_bias, _, wants_taps = ctx.needs_input_grad
        x, experts, routing, kernels, taps = ctx.saved_tensors
        if torch.is_grad_enabled():
            kernels = None  # the second derivative would treat saved kernels as constants
        wanted = wants_x, wants_experts or wants_routing or wants_taps
        *grads, grad_taps = _backward(grad, x, experts, routing, kernels, ctx.geometry, taps, wanted)
        return *grads, grad.sum((2, 3)) if wants_bias else None, None, grad_taps


def _geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)


@torch.library.custom_op('mmdyn::dynamic_conv2d', mutates_args=())
def _operator(
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    taps: Tensor | None = None,
) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return _forward(x, experts, routing, bias, _geometry(stride, padding, dilation, groups), taps)[0]


@torch.library.custom_op('mmdyn::dynamic_conv2d_backward', mutates_args=())
def _operator_backward(
    grad: Tensor,
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    taps: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    geometry = _geometry(stride, padding, dilation, groups)
    *grads, grad_taps = _backward(grad, x, experts, routing, None, geometry, taps, (True, True))
    no_taps = routing.new_empty(0)  # an operator returns tensors only
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], (*grads, no_taps if grad_taps is None else grad_taps))


@_operator.register_fake
def _(x, experts, routing, bias, stride, padding, dilation, groups, taps=None):
    size = _geometry(stride, padding, dilation, groups).output_size(x.shape[2:], experts.shape[3:])
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return x.new_empty(x.shape[0], experts.shape[1], *size).to(memory_format=memory_format)


@_operator_backward.register_fake
def _(grad, x, experts, routing, stride, padding, dilation, groups, taps=None):
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return (
        torch.empty_like(x, memory_format=memory_format),
        torch.empty_like(experts, memory_format=torch.contiguous_format),
        torch.empty_like(routing, memory_format=torch.contiguous_format),
        routing.new_empty(0) if taps is None else torch.empty_like(taps, memory_format=torch.contiguous_format),
    )


def _save_for_operator(ctx, inputs, output) -> None:
    x, experts, routing, _, *ctx.geometry, taps = inputs
    ctx.save_for_backward(x, experts, routing, taps)


def _differentiate_operator(ctx, grad: Tensor):
    *tensors, taps = ctx.saved_tensors
    *grads, grad_taps = _operator_backward(grad, *tensors, *ctx.geometry, taps)
    grad_bias = grad.sum((2, 3)) if ctx.needs_input_grad[3] else None
    return *grads, grad_bias, None, None, None, None, None if taps is None else grad_taps


_operator.register_autograd(_differentiate_operator, setup_context=_save_for_operator)


def _is_exporting() -> bool:
    """Whether ``torch.export`` traces.

    Dynamo of PyTorch 2.7 says so when it compiles, too: the experts would lose their gradients. Its flag is true for
    exports with ``strict=False`` only.
    """
    if OLD_DYNAMO:
        return torch.compiler._is_exporting_flag
    return torch.compiler.is_exporting()


def mixed_conv2d(
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    taps: Tensor | None = None,
) -> Tensor:
    """Convolve every sample with its mixture of the experts.

    ``torch.compile`` sees one operator instead of a loop over the batch, which it would unroll for every batch size.
    Exporters and tracers see plain operators, see ``export_forms.py``.

    Args:
        x: Input, (B, I, H, W).
        experts: Expert kernels, (M, O, I/g, k, k).
        routing: Weight of every expert for every sample, (B, M).
        bias: Added to every position of a sample, (B, O), or None.
        geometry: Stride, padding, dilation and groups.
        taps: Scales the taps of a sample's kernel, (B, k, k), or None.

    Returns:
        Output, (B, O, H', W'), in the memory format of ``x``.
    """
    if torch.jit.is_tracing() or _is_exporting():
        return exported_conv2d(x, experts, routing, bias, geometry, taps)
    if x.shape[0] == 0:  # an empty batch: the experts get a gradient of zeros
        kernel = torch.einsum('bm,moihw->oihw', routing.to(experts.dtype), experts).to(x.dtype)
        kernel = kernel if taps is None else kernel + taps.to(x.dtype).sum(0)
        y = F.conv2d(x, kernel, None, *geometry)
        return y if bias is None else y + bias.to(y.dtype)[:, :, None, None]
    if torch.compiler.is_compiling():
        return _operator(x, experts, routing, bias, *geometry, taps)
    if torch.is_grad_enabled() and not _is_plain(x, experts, geometry):
        return DynamicConvolution.apply(x, experts, routing, bias, geometry, taps)[0]
    return _forward(x, experts, routing, bias, geometry, taps)[0]
