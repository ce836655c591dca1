"""ODConv: a dynamic convolution whose kernels also depend on the image by channel, by filter and by tap.

Omni-Dimensional Dynamic Convolution, Li et al., ICLR 2022, https://arxiv.org/abs/2209.07947, eq. 2::

    y_b = filter_b * conv(channel_b * x_b, taps_b * sum_m routing_bm W_m)

Scales of input channels and of filters are applied to the input and to the output, which is the same as to the kernel;
those of the taps to the mixed kernel. With one expert the layer is attention alone, and the parameters are those of a
static convolution and the attention. The published code has a batch norm in the attention, which fails for one image
at a time; here there is none.

Shapes: B batch, I O in and out channels, A features, M experts, g groups, k kernel size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmdyn.registry import MODELS

from .dynamic_conv import DynamicConv, dynamic_conv2d
from .execution import Pair
from .global_mean import global_mean
from .router import Router, RouterFeatures, hidden_channels


class Attention(NamedTuple):
    """What multiplies the kernels of a batch; None where a layer has no such attention."""

    channel: Tensor  # (B, I)
    filter: Tensor | None  # (B, O)
    taps: Tensor | None  # (B, k, k)
    routing: Tensor | None  # (B, M)

    def map(self, function: Callable[[Tensor], Tensor]) -> 'Attention':
        """Apply a function to every tensor."""
        present = {name: function(tensor) for name, tensor in self._asdict().items() if tensor is not None}
        return self._replace(**present)


class Gates(nn.Module):
    """Scales of channels, filters and taps from pooled features: hidden channels with a ReLU, a linear layer, sigmoid.

    State dict: ``features`` as in :class:`RouterFeatures`, ``weight`` (I + O + k * k, A) and ``bias``. It computes in
    the type of its parameters, also under autocast.

    Args:
        in_channels: Channels I of the pooled input.
        sizes: Number of channels, filters and taps to scale; zero for none.
        hidden: Hidden channels A.
        normalise: As in :class:`Router`.
        temperature: Divides the logits.
    """

    def __init__(
        self, in_channels: int, sizes: tuple[int, int, int], hidden: int, normalise: bool, temperature: float
    ) -> None:
        super().__init__()
        self.sizes, self.temperature = sizes, temperature
        self.features = RouterFeatures(in_channels, hidden, normalise)
        self.weight = nn.Parameter(torch.empty(sum(sizes), hidden))
        self.bias = nn.Parameter(torch.empty(sum(sizes)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights as ``nn.Linear`` has them, biases zero: all scales are near one half."""
        self.features.reset_parameters()
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.zeros_(self.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, I) -> features (B, A), and the scales of channels, filters and taps, one tensor each."""
        if torch.is_autocast_enabled(pooled.device.type):
            with torch.autocast(pooled.device.type, enabled=False):
                return self.forward(pooled)
        features = self.features(pooled.to(self.weight.dtype))
        logits = F.linear(features, self.weight, self.bias)
        scales = torch.sigmoid(logits if self.temperature == 1 else logits / self.temperature)
        return features, scales.split(self.sizes, dim=1)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        channels, filters, taps = self.sizes
        return f'channels={channels}, filters={filters}, taps={taps}, temperature={self.temperature}'


@MODELS.register_module()
class ODConv(DynamicConv):
    """Omni-dimensional dynamic convolution, for use in place of a ``Conv2d``.

    A depthwise layer has no attention of filters, which would be that of its channels; a 1x1 kernel none of taps; and
    a single expert is not weighed.

    State dict: ``weight`` (M, P), ``bias`` (M, O) if any, ``gates`` as in :class:`Gates`, and the ``router`` of several
    experts, ``router.weight`` (M, A) and ``router.bias`` (M).

    Args:
        in_channels: As in :class:`DynamicConv`, like the next eight.
        out_channels: Channels of the output.
        kernel_size: Kernel size.
        stride: Stride.
        padding: Zeros added on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Groups of channels.
        bias: Whether every expert has a bias, which no attention scales.
        num_experts: Experts M.
        hidden: Features of the attention: a number A, or a fraction of ``in_channels`` of at least 16.
        temperature: Divides all logits; :class:`TemperatureHook` can lower it.
        normalise: As in :class:`Router`.

    Raises:
        ValueError: As in :class:`DynamicConv`; or ``hidden`` or ``temperature`` is not positive.

    Example:
        >>> layer = ODConv(64, 128, 3, stride=2, padding=1, num_experts=1)
        >>> layer(torch.rand(8, 64, 80, 80)).shape
        torch.Size([8, 128, 40, 40])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = False,
        num_experts: int = 4,
        hidden: int | float = 1 / 16,
        temperature: float = 1.0,
        normalise: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, num_experts, router=None
        )
        if not 0 < temperature < math.inf:
            raise ValueError(f'temperature must be positive, got {temperature}')
        width = hidden_channels(hidden, in_channels)
        width = width if isinstance(hidden, int) else max(width, 16)
        height_k, width_k = _pair(kernel_size)
        filters = 0 if groups == in_channels == out_channels else out_channels
        taps = height_k * width_k if height_k * width_k > 1 else 0
        self.gates = Gates(in_channels, (in_channels, filters, taps), width, normalise, temperature)
        if num_experts > 1:
            self.router = Router(width, num_experts, 'softmax', temperature)

    def init_weights(self) -> None:
        """Initialise experts and attention again, as at construction."""
        super().init_weights()
        self.gates.reset_parameters()

    def attend(self, pooled: Tensor) -> Attention:
        """The attention of a batch, from its globally pooled features (B, I)."""
        features, scales = self.gates(pooled)
        return self.attention(scales, None if self.router is None else self.router(features))

    def attention(self, scales: tuple[Tensor, ...], routing: Tensor | None) -> Attention:
        """The attention of scales of channels, filters and taps, and of routing weights."""
        channel, filters, taps = scales
        by_tap = taps.unflatten(1, self.weight_shape[2:]) if taps.shape[1] else None
        return Attention(channel, filters if filters.shape[1] else None, by_tap, routing)

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        """Convolve a batch.

        Args:
            x: Input, (B, I, H, W).
            routing: Not for this layer: it has its own.

        Returns:
            Output, (B, O, H', W').

        Raises:
            ValueError: Routing weights of another layer were passed.
        """
        if routing is not None:
            raise ValueError('ODConv routes by itself: set shared_router=False')
        x, pooled = global_mean(x)
        attention = self.attend(pooled)
        x = x * attention.channel.to(x.dtype)[:, :, None, None]
        geometry = self.stride, self.padding, self.dilation, self.groups
        weights = pooled.new_ones(x.shape[0], 1) if attention.routing is None else attention.routing
        if attention.routing is None and attention.taps is None:
            y = F.conv2d(x, self.experts[0], None, *geometry)
        else:
            y = dynamic_conv2d(x, self.experts, weights, None, *geometry, taps=attention.taps)
        if attention.filter is not None:
            y = y * attention.filter.to(y.dtype)[:, :, None, None]
        if self.bias is not None:
            y = y + (weights.to(self.bias.dtype) @ self.bias).to(y.dtype)[:, :, None, None]
        return y if self.shared_bias is None else y + self.shared_bias.to(y.dtype)[:, None, None]

    def mixed_kernels(self, attention: Attention) -> Tensor:
        """The kernels of a batch, (B, O, I/g, k, k), with all that multiplies them."""
        weights = self.weight.new_ones(len(attention.channel), 1) if attention.routing is None else attention.routing
        kernels = torch.einsum('bm,m...->b...', weights, self.experts)
        by_group = attention.channel.unflatten(1, (self.groups, -1))  # (B, g, I/g)
        kernels = kernels * by_group.repeat_interleave(self.out_channels // self.groups, 1)[..., None, None]
        if attention.taps is not None:
            kernels = kernels * attention.taps[:, None, None]
        return kernels if attention.filter is None else kernels * attention.filter[:, :, None, None, None]
