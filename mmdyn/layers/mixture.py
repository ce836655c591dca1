"""Mixture: experts and routing become the kernels of a batch, and gradients of these become theirs.

Autograd would keep the mixed kernels, B * P elements, for the backward pass; here they are mixed anew there, unless
they are small. Mixing is linear, so it can be done in any order of a kernel's elements: in channels-last order where
the convolution wants that, so that no kernel is reordered twice.

Shapes: B batch, M experts, I O in and out channels, g groups, k kernel size, P = O * I/g * k * k, H W height and width.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .execution import Geometry, choose_path, is_channels_last
from .export_forms import exported_conv2d, mixed_outputs

KEPT_BYTES = 8 << 20  # of mixed kernels a layer, which saves mixing them again


def _ordered(kernels: Tensor, channels_last: bool) -> Tensor:
    """(N, O, I/g, k, k) -> (N, P) in the order in which the kernels are wanted: channels innermost, or plain."""
    return (kernels.permute(0, 1, 3, 4, 2) if channels_last else kernels).reshape(kernels.shape[0], -1)


def _kernels(ordered: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """Undo :func:`_ordered`, as a view."""
    out_channels, width, height_k, width_k = shape
    if channels_last:
        return ordered.view(-1, out_channels, height_k, width_k, width).permute(0, 1, 4, 2, 3)
    return ordered.view(-1, *shape)


class Source(NamedTuple):
    """What kernels of a batch are mixed from: the experts, flat, ready in whatever costs least.

    With fewer kernels than experts, the experts are as they are, and the kernels are cast and reordered afterwards;
    otherwise the experts are cast and reordered before.
    """

    flat: Tensor  # (M, P)
    shape: torch.Size  # of a kernel, (O, I/g, k, k)
    dtype: torch.dtype  # of the convolution
    channels_last: bool  # whether the convolution wants the channels of a kernel innermost
    ready: bool  # whether cast and reordered


def prepare(experts: Tensor, batch: int, dtype: torch.dtype, channels_last: bool) -> Source:
    """Make experts, (M, O, I/g, k, k), ready for a batch."""
    ready = batch >= len(experts)
    flat = _ordered(experts.to(dtype), channels_last) if ready else _ordered(experts, False)
    return Source(flat, experts.shape[1:], dtype, channels_last, ready)


def mix(source: Source, routing: Tensor) -> Tensor:
    """Kernels of a batch, (B, O, I/g, k, k), in the type of the convolution."""
    flat, shape, dtype, channels_last, ready = source
    mixed = routing.to(flat.dtype) @ flat  # (B, P)
    if ready or not channels_last:
        return _kernels(mixed.to(dtype), shape, channels_last)
    return _kernels(_ordered(_kernels(mixed.to(dtype), shape, False), True), shape, True)


def unmix(grad: Tensor, source: Source, routing: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of experts and routing from those of the kernels, (B, O, I/g, k, k)."""
    flat, shape, _, channels_last, ready = source
    ordered = _ordered(grad.to(flat.dtype), channels_last and ready)  # (B, P)
    grad_experts = _kernels(routing.to(flat.dtype).t() @ ordered, shape, channels_last and ready).contiguous()
    return grad_experts, (ordered @ flat.t()).to(routing.dtype)


def _forward(
    x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    path, channels_last = choose_path(x, experts.shape[1:], geometry)
    kernels = mix(prepare(experts, x.shape[0], x.dtype, channels_last), routing)
    return path.forward(x, kernels, None if bias is None else bias.to(x.dtype), geometry), kernels


def _backward(
    grad: Tensor,
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    kernels: Tensor | None,
    geometry: Geometry,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    with torch.autocast(x.device.type, enabled=False):
        path, channels_last = choose_path(x, experts.shape[1:], geometry, backward=True)
        source = prepare(experts, x.shape[0], x.dtype, channels_last)
        kernels = mix(source, routing) if kernels is None else kernels
        grad_x, grad_kernels = path.backward(grad, x, kernels, geometry, wanted)
        if grad_kernels is None:
            return grad_x, None, None
        grad_experts, grad_routing = unmix(grad_kernels, source, routing)
        return grad_x, grad_experts.to(experts.dtype), grad_routing


def _is_small(x: Tensor, experts: Tensor) -> bool:
    """Whether the mixed kernels of a batch may be kept."""
    return x.shape[0] * experts[0].numel() * x.element_size() <= KEPT_BYTES


def _is_plain(x: Tensor, experts: Tensor, geometry: Geometry) -> bool:
    """Whether PyTorch's own gradient does as well: kernels kept, both ways the same, and no loop to stack up."""
    shape = experts.shape[1:]
    path = choose_path(x, shape, geometry)[0]
    return (
        _is_small(x, experts)
        and path is choose_path(x, shape, geometry, backward=True)[0]
        and (x.shape[0] == 1 or path.name != 'per_sample')
    )


class DynamicConvolution(torch.autograd.Function):
    """Keeps its inputs, and the mixed kernels where they are small; can be differentiated again, and vectorised."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> tuple[Tensor, Tensor | None]:
        """As :func:`mixed_conv2d`, and the kernels to keep."""
        y, kernels = _forward(x, experts, routing, bias, geometry)
        y = torch.ops.aten._unsafe_view(y, y.shape)  # for autograd no view any more: an activation may overwrite it
        return y, kernels if _is_small(x, experts) else None

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Keep what the backward pass mixes from, or what has been mixed."""
        x, experts, routing, _, ctx.geometry = inputs
        _, kernels = output
        ctx.save_for_backward(x, experts, routing, kernels)
        if kernels is not None:
            ctx.mark_non_differentiable(kernels)

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        """Gradients of x, experts, routing and bias, of differentiable operators."""
        wants_x, *wants_kernels, wants_bias, _ = ctx.needs_input_grad
        x, experts, routing, kernels = ctx.saved_tensors
        if torch.is_grad_enabled():
            kernels = None  # a constant, which the gradient of this gradient would take it for
        grads = _backward(grad, x, experts, routing, kernels, ctx.geometry, (wants_x, any(wants_kernels)))
        return *grads, grad.sum((2, 3)) if wants_bias else None, None


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
) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return _forward(x, experts, routing, bias, _geometry(stride, padding, dilation, groups))[0]


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
) -> tuple[Tensor, Tensor, Tensor]:
    geometry = _geometry(stride, padding, dilation, groups)
    return cast(tuple[Tensor, Tensor, Tensor], _backward(grad, x, experts, routing, None, geometry, (True, True)))


@_operator.register_fake
def _(x, experts, routing, bias, stride, padding, dilation, groups):
    size = _geometry(stride, padding, dilation, groups).output_size(x.shape[2:], experts.shape[3:])
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return x.new_empty(x.shape[0], experts.shape[1], *size).to(memory_format=memory_format)


@_operator_backward.register_fake
def _(grad, x, experts, routing, stride, padding, dilation, groups):
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return (
        torch.empty_like(x, memory_format=memory_format),
        torch.empty_like(experts, memory_format=torch.contiguous_format),
        torch.empty_like(routing, memory_format=torch.contiguous_format),
    )


def _save_for_operator(ctx, inputs, output) -> None:
    x, experts, routing, _, *ctx.geometry = inputs
    ctx.save_for_backward(x, experts, routing)


def _differentiate_operator(ctx, grad: Tensor):
    grads = _operator_backward(grad, *ctx.saved_tensors, *ctx.geometry)
    return *grads, grad.sum((2, 3)) if ctx.needs_input_grad[3] else None, None, None, None, None


_operator.register_autograd(_differentiate_operator, setup_context=_save_for_operator)


def mixed_conv2d(x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve every sample with its mixture of the experts.

    A compiler gets one operator instead of a loop over the batch, which it would unroll, and again for every batch
    size. An exporter or tracer gets plain operators, see ``export_forms.py``.

    Args:
        x: Input, (B, I, H, W).
        experts: Expert kernels, (M, O, I/g, k, k).
        routing: Weight of every expert for every sample, (B, M).
        bias: Added to every position of a sample, (B, O), or None.
        geometry: Stride, padding, dilation and groups.

    Returns:
        Output, (B, O, H', W'), in the memory format of ``x``.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return exported_conv2d(x, experts, routing, bias, geometry)
    if x.shape[0] == 0:
        return mixed_outputs(x, experts, routing, bias, geometry)
    if torch.compiler.is_compiling():
        return _operator(x, experts, routing, bias, *geometry)
    if torch.is_grad_enabled() and not _is_plain(x, experts, geometry):
        return DynamicConvolution.apply(x, experts, routing, bias, geometry)[0]
    return _forward(x, experts, routing, bias, geometry)[0]
