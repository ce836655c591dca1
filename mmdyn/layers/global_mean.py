"""Global mean: the average of a feature map over its positions, in one pass forward and one backward.

For a channels-last map of half precision on a CPU, ``mean`` takes three to four times as long as reading it, and its
gradient, broadcast over few channels, up to twenty times (``benchmarks/README.md``). Here columns of whole rows are
averaged, and whole rows are added to.

Shapes: B batch, C channels, H W height and width, R = W * C elements of a row.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .execution import HALF, is_channels_last

_areas: ContextVar[Tensor | None] = ContextVar('areas', default=None)
SMALL_TENSOR = 1 << 18  # elements below which the custom function costs more than it saves


def _mean_of_columns(x: Tensor) -> Tensor:
    """Channels-last (B, C, H, W) -> (B, C) in float32: summed in float32, rounded once for every column."""
    batch, channels, height, width = x.shape
    row = width * channels
    pieces = math.gcd(width, 4)  # of a row, so that several threads can work at batch 1
    size, stride = (batch, row // pieces, height, pieces), (row * height, 1, row, row // pieces)
    columns = F.avg_pool2d(x.as_strided(size, stride, x.storage_offset()), (height, 1))  # (B, R / pieces, 1, pieces)
    return columns.permute(0, 2, 3, 1).reshape(batch, width, channels).mean(1, dtype=torch.float32)


def _plain_mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), dtype=torch.float32 if x.dtype in HALF else None)


def _mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), at least in float32."""
    if x.dtype in HALF and x.device.type == 'cpu' and x.numel() and x.is_contiguous(memory_format=torch.channels_last):
        return _mean_of_columns(x)
    return _plain_mean(x)


@contextmanager
def valid_areas(areas: Tensor) -> Iterator[None]:
    """Let :func:`global_mean` average over a part of every sample within the block.

    Args:
        areas: Top, bottom, left and right border as fractions of height and width, (B, 4).
    """
    token = _areas.set(areas)
    try:
        yield
    finally:
        _areas.reset(token)


def _overlap(low: Tensor, high: Tensor, size: int) -> Tensor:
    """How much of each of ``size`` cells lies between two borders, (B) each, as a share of the whole: (B, size)."""
    cells = torch.arange(size, device=low.device)
    inside = torch.minimum(cells + 1, size * high[:, None]) - torch.maximum(cells, size * low[:, None])
    inside = inside.clamp(min=0)
    return inside / inside.sum(1, keepdim=True)


def _mean_of_areas(x: Tensor, areas: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C): the mean over each sample's area; cells on a border count by their share."""
    top, bottom, left, right = areas.unbind(1)
    rows, columns = _overlap(top, bottom, x.shape[2]), _overlap(left, right, x.shape[3])
    kind = torch.float32 if x.dtype in HALF else x.dtype
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum('bchw,bh,bw->bc', x.to(kind), rows.to(kind), columns.to(kind))


class GlobalMean(torch.autograd.Function):
    """Returns the map and its mean, so that the backward pass adds both gradients in one pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> itself, (B, C)."""
        return x, _mean(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Keep the shape."""
        ctx.positions = inputs[0].shape[2] * inputs[0].shape[3]

    @staticmethod
    def backward(ctx, grad: Tensor, grad_mean: Tensor) -> Tensor:
        """The gradient of the map plus that of the mean."""
        share = (grad_mean / ctx.positions).to(grad.dtype)  # (B, C)
        if not is_channels_last(grad):
            return grad + share[:, :, None, None]
        batch, channels, height, width = grad.shape
        rows = grad.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        total = rows + share.repeat(1, width)[:, None]  # (B, H, W * C)
        return total.view(batch, height, width, channels).permute(0, 3, 1, 2)


def global_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Average a map over its positions, or over the areas of :func:`valid_areas`.

    Args:
        x: Features, (B, C, H, W).

    Returns:
        The features for further use, and their mean, (B, C): float32 for half precision, else as ``x``.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # both fuse plain operators
        return x, _plain_mean(x)
    areas = _areas.get()
    if areas is not None and len(areas) == len(x):
        return x, _mean_of_areas(x, areas)
    if torch.is_grad_enabled() and x.numel() > SMALL_TENSOR:
        return GlobalMean.apply(x)
    return x, _mean(x)
