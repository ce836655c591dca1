"""Execution: how a convolution that has its own kernel for every sample is run.

Three ways, each with its backward; ``PATHS`` says which call goes which way, with what was
measured on two CPU cores with AVX512-BF16. The whole grid, and what was tried and left out: ``benchmarks/README.md``.
On a GPU the same table serves, and nobody has measured it.

Shapes: B batch, I O in and out channels, g groups, k kernel size, H W height and width.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
Pair = tuple[int, int]
Gradients = tuple[Tensor | None, Tensor | None]  # of the input and of the kernels, None where not wanted


class Geometry(NamedTuple):
    """How kernels slide; as in ``torch.nn.functional.conv2d``."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def output_size(self, size: Sequence[int], kernel_size: Sequence[int]) -> list[int]:
        """Height and width of the output from those of the input."""
        return [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel_size, self.stride, self.padding, self.dilation, strict=True)
        ]


class Call(NamedTuple):
    """What decides how a call is run."""

    batch: int
    channels_last: bool
    half: bool  # bf16 or fp16
    pointwise: bool  # a 1x1 kernel that neither strides nor pads, in one group
    depthwise: bool
    strided: bool
    positions: int  # of the output, H * W
    backward: bool


class Path(NamedTuple):
    """One way to run a call.

    ``forward(x, kernels, bias, geometry)`` convolves (B, I, H, W) with kernels (B, O, I/g, k, k) and adds bias (B, O);
    ``backward(grad, x, kernels, geometry, wanted)`` returns the gradients of x and of kernels, where wanted.
    """

    name: str
    fits: Callable[[Call], bool]
    forward: Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Geometry, tuple[bool, bool]], Gradients]


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
    return grad_x, torch.stack([k.permute(0, 2, 3, 1) for _, k in each]).permute(0, 1, 4, 2, 3)  # as they lie


def _folded(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (1, B * C, H, W), with the strides of a plain map whatever its sizes."""
    return x.reshape(-1).view(1, -1, *x.shape[2:])


def grouped(x: Tensor, kernels: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution with the batch folded into groups; copies what is channels-last, and back."""
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
    """A product of matrices per sample, in one batch: for pointwise kernels."""
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


SMALL_MAP = 14 * 14  # output positions up to which a convolution of its own costs more to call than to compute


def _one(call: Call) -> bool:
    return call.batch == 1


def _product(call: Call) -> bool:
    return call.pointwise and (call.half or call.positions <= SMALL_MAP)


def _folds_well(call: Call) -> bool:
    # oneDNN's gradients of a grouped convolution with strides are slow, up to four times static.
    slow = call.backward and call.strided and not call.depthwise
    return not slow and (call.positions <= SMALL_MAP or not call.channels_last)


# The first that fits. The time of a static convolution is 1; of the loop over samples, of the way chosen instead:
PATHS = (
    Path('per_sample', _one, per_sample, per_sample_backward),
    # 64->256 at 7x7, batch 8, bf16, channels-last: 6.1, 1.0 forward; 5.1, 0.8 backward
    Path('matmul', _product, matmul, matmul_backward),
    # 64->64 k3 at 10x10, batch 8, channels-last: 3.3, 1.5; 64->64 k3 at 40x40, batch 32, bf16, plain: 1.5, 1.1
    Path('grouped', _folds_well, grouped, grouped_backward),
    # 64->64 k3 s2 at 160x160, batch 8, bf16, channels-last: 1.2; grouped 2.5
    Path('per_sample', lambda call: True, per_sample, per_sample_backward),
)


@lru_cache(maxsize=1024)
def _choose(
    shape: torch.Size, channels_last: bool, half: bool, kernel_shape: torch.Size, geometry: Geometry, backward: bool
) -> tuple[Path, bool]:
    batch, _, *size = shape
    _, width, *kernel_size = kernel_shape
    height_out, width_out = geometry.output_size(size, kernel_size)
    call = Call(
        batch=batch,
        channels_last=channels_last,
        half=half,
        pointwise=kernel_size == [1, 1] and geometry == Geometry((1, 1), (0, 0), geometry.dilation, 1),
        depthwise=width == 1 and geometry.groups > 1,
        strided=max(geometry.stride) > 1,
        positions=height_out * width_out,
        backward=backward,
    )
    path = next(path for path in PATHS if path.fits(call))
    return path, channels_last and path.forward is per_sample


def choose_path(x: Tensor, kernel_shape: torch.Size, geometry: Geometry, backward: bool = False) -> tuple[Path, bool]:
    """How to run a call.

    Args:
        x: Input, (B, I, H, W).
        kernel_shape: Shape of one kernel, (O, I/g, k, k).
        geometry: How it slides.
        backward: Whether for the gradients, which may go another way than the output.

    Returns:
        The way, and whether it wants the channels of a kernel innermost.
    """
    return _choose(x.shape, is_channels_last(x), x.dtype in HALF, kernel_shape, geometry, backward)
