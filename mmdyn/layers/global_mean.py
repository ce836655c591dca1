"""Global mean: the average of a feature map over its positions, in one pass forward and one backward.

For a channels-last map of half precision on a CPU, ``mean`` takes three to four times as long as reading it, and its
gradient, broadcast over few channels, up to twenty times (``benchmarks/README.md``). Here columns of whole rows are
averaged, and whole rows are added to.

Shapes: B batch, C channels, H W height and width, R = W * C elements of a row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .execution import HALF, is_channels_last

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
    """Average a map over its positions.

    Args:
        x: Features, (B, C, H, W).

    Returns:
        The features for further use, and their mean, (B, C): float32 for half precision, else as ``x``.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # both fuse plain operators
        return x, _plain_mean(x)
    if torch.is_grad_enabled() and x.numel() > SMALL_TENSOR:
        return GlobalMean.apply(x)
    return x, _mean(x)
