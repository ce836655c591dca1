"""Execution: run a convolution that has its own kernel for every sample.

The only place that knows how. Whatever wants another way (fused, folded into groups, exported) changes this function.

Shapes: B batch, I O in and out channels, g groups, k kernel size, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]


def per_sample_conv2d(
    x: Tensor, kernels: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """Convolve sample ``b`` with kernel ``b``: one dense convolution per sample.

    Args:
        x: Input, (B, I, H, W).
        kernels: One kernel per sample, (B, O, I/g, k, k).
        bias: One bias per sample, (B, O), or None.
        stride: As in ``torch.nn.functional.conv2d``, as are the three below.
        padding: Zeros added on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Blocks of channels convolved apart.

    Returns:
        Output, (B, O, H', W'), in the memory format of ``x``.
    """
    if len(x) == 0:
        return F.conv2d(x, x.new_empty(kernels.shape[1:]), None, stride, padding, dilation, groups)
    outputs = [
        F.conv2d(x[b : b + 1], kernels[b], None if bias is None else bias[b], stride, padding, dilation, groups)
        for b in range(len(x))
    ]  # B x (1, O, H', W')
    return torch.cat(outputs)
