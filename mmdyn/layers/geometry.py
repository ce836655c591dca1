"""Geometry of a convolution: how its kernel slides."""

from collections.abc import Sequence
from typing import NamedTuple

Pair = tuple[int, int]


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
