"""Routing: how much of every expert a sample gets.

One linear layer on the globally pooled input, then sigmoid (CondConv, https://arxiv.org/abs/1904.04971; ParameterNet,
https://arxiv.org/abs/2306.14525, eq. 5) or softmax with a temperature (https://arxiv.org/abs/1912.03458, eq. 4).
ParameterNet's text has a two-layer MLP; its code and the published detectors have this single layer.

Shapes: B batch, C channels, M experts.
"""

import functools
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RoutingKind = Literal['sigmoid', 'softmax']

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'sigmoid': torch.sigmoid,
    'softmax': functools.partial(torch.softmax, dim=-1),
}


class Routing(nn.Linear):
    """Routing weights of a batch from its globally pooled features.

    A ``nn.Linear`` with the activation after it, so its state dict is ``weight`` (M, C) and ``bias`` (M). It computes
    in the parameters' type, also under autocast: sigmoid of a half-precision logit is coarse, and the layer is tiny.

    Args:
        in_channels: Channels C of the input.
        num_experts: Experts M to weigh.
        kind: ``'sigmoid'`` weighs every expert on its own, ``'softmax'`` makes the weights sum to one.
        temperature: Divides the logits; above one flattens the routing, below one sharpens it.

    Raises:
        ValueError: ``kind`` is unknown, or ``temperature`` is not positive.
    """

    def __init__(
        self, in_channels: int, num_experts: int, kind: RoutingKind = 'sigmoid', temperature: float = 1.0
    ) -> None:
        if kind not in _ACTIVATIONS:
            raise ValueError(f'routing must be one of {sorted(_ACTIVATIONS)}, got {kind!r}')
        if temperature <= 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        super().__init__(in_channels, num_experts)
        self.kind = kind
        self.temperature = temperature

    def forward(self, pooled: Tensor) -> Tensor:
        """Route a batch.

        Args:
            pooled: Features averaged over positions, (B, C); see :func:`global_mean`.

        Returns:
            Routing weights, (B, M), in the parameters' type.
        """
        if not torch.is_autocast_enabled(pooled.device.type):
            return self._route(pooled)
        with torch.autocast(pooled.device.type, enabled=False):
            return self._route(pooled)

    def _route(self, pooled: Tensor) -> Tensor:
        logits = F.linear(pooled.to(self.weight.dtype), self.weight, self.bias)  # (B, M)
        return _ACTIVATIONS[self.kind](logits if self.temperature == 1 else logits / self.temperature)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'{super().extra_repr()}, kind={self.kind}, temperature={self.temperature}'


class SharedRouting(nn.Module):
    """In the place of a layer's own :class:`Routing`: the weights that the block around it computed for all its layers.

    As in CondConv's EfficientNet, where the layers of a block share one router.

    Args:
        num_experts: Experts M.
    """

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.weights: Tensor | None = None  # (B, M), of the batch that the block is running

    def forward(self, pooled: Tensor) -> Tensor:
        """The block's routing weights.

        Args:
            pooled: What the layer's own router would see, (B, C); not used.

        Returns:
            Routing weights, (B, M).

        Raises:
            RuntimeError: The block has not routed this batch.
        """
        if self.weights is None:
            raise RuntimeError('a layer with shared routing runs only inside the block that routes')
        return self.weights

    def reset_parameters(self) -> None:
        """Nothing: the block has the parameters."""

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'num_experts={self.num_experts}'
