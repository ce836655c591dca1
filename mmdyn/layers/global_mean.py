"""Global mean: the average of a map over its positions, in one pass each way.

``mean`` over a channels-last map of half precision takes four times as long as reading it, and its gradient, broadcast
over the innermost channels when there are few, up to twenty times (``benchmarks/README.md``). Here whole rows of a
channels-last map are summed and added to.

Shapes: B batch, C channels, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), at least in float32."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    if half and x.device.type == 'cpu' and x.is_contiguous(memory_format=torch.channels_last):
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch, height, 1, width * channels).permute(0, 3, 1, 2)  # (B, W * C, H, 1)
        columns = F.avg_pool2d(rows, (height, 1))  # (B, W * C, 1, 1), summed in float32 and rounded once
        return columns.view(batch, width, channels).mean(1, dtype=torch.float32)
    return x.mean((2, 3), dtype=torch.float32 if half else None)


class GlobalMean(torch.autograd.Function):
    """Hands the map through beside its mean, so that both gradients meet here and are added in one pass."""

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
        """The map's own gradient plus what every position gave to the mean."""
        share = (grad_mean / ctx.positions).to(grad.dtype)  # (B, C)
        if not grad.is_contiguous(memory_format=torch.channels_last):
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
        The features, to go on with, and their mean, (B, C): float32 for half precision, else as ``x``.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # which fuse plain operators on their own
        return x, x.mean((2, 3), dtype=torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else None)
    return GlobalMean.apply(x)
