"""Router: computes the weight of every expert for a sample.

One linear layer on the globally pooled input, then sigmoid (CondConv, https://arxiv.org/abs/1904.04971; ParameterNet,
https://arxiv.org/abs/2306.14525, eq. 5) or softmax with a temperature (https://arxiv.org/abs/1912.03458, eq. 4).
ParameterNet's text has an MLP of two layers; its code and the published detectors have this single layer.

Shapes: B batch, C channels, M experts.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal['sigmoid', 'softmax']
RouterConfig = Activation | Mapping[str, Any]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'sigmoid': torch.sigmoid,
    'softmax': functools.partial(torch.softmax, dim=-1),
}


class Router(nn.Module):
    """Routing weights of a batch from its globally pooled features: a linear layer and an activation.

    State dict: ``weight`` (M, C) and ``bias`` (M). It computes in the type of its parameters, also under autocast: the
    sigmoid of a half-precision logit is coarse, and the layer is tiny. It is not an ``nn.Linear``, so tools that
    replace linear layers do not change it.

    Args:
        in_channels: Channels C of the input.
        num_experts: Experts M to weigh.
        activation: ``'sigmoid'`` weights every expert independently, ``'softmax'`` makes the weights sum to one.
        temperature: Divides the logits; above one flattens the weights, below one sharpens them.

    Raises:
        ValueError: ``activation`` is unknown, or ``temperature`` is not positive.

    Example:
        >>> router = Router(64, num_experts=4, activation='softmax', temperature=30.0)
        >>> router(torch.rand(8, 64)).sum(1)
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000],
               grad_fn=<SumBackward1>)
    """

    def __init__(
        self, in_channels: int, num_experts: int, activation: Activation = 'sigmoid', temperature: float = 1.0
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f'router activation must be one of {sorted(_ACTIVATIONS)}, got {activation!r}')
        if temperature <= 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        self.in_channels, self.num_experts = in_channels, num_experts
        self.activation = activation
        self.temperature = temperature
        self.weight = nn.Parameter(torch.empty(num_experts, in_channels))
        self.bias = nn.Parameter(torch.empty(num_experts))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as ``nn.Linear`` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.in_channels)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, pooled: Tensor) -> Tensor:
        """Route a batch.

        Args:
            pooled: Features averaged over positions, (B, C); see :func:`global_mean`.

        Returns:
            Routing weights, (B, M), in the type of the parameters.
        """
        if torch.is_autocast_enabled(pooled.device.type):
            with torch.autocast(pooled.device.type, enabled=False):
                return self.forward(pooled)  # not __call__: hooks see one call
        logits = F.linear(pooled.to(self.weight.dtype), self.weight, self.bias)  # (B, M)
        return _ACTIVATIONS[self.activation](logits if self.temperature == 1 else logits / self.temperature)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'{self.in_channels}, {self.num_experts}, activation={self.activation}, temperature={self.temperature}'


def build_router(cfg: RouterConfig, in_channels: int, num_experts: int) -> Router:
    """Build the router that a config describes.

    Args:
        cfg: An activation, or ``dict(type='linear', activation=…, temperature=…)`` with any of these keys.
        in_channels: Channels of the input.
        num_experts: Experts to weigh.

    Raises:
        ValueError: A type or key is unknown, or as in :class:`Router`.

    Example:
        >>> build_router(dict(activation='softmax', temperature=30.0), 64, 4)
        Router(64, 4, activation=softmax, temperature=30.0)
    """
    options: dict[str, Any] = dict(activation=cfg) if isinstance(cfg, str) else dict(cfg)
    kind = options.pop('type', 'linear')
    unknown = sorted(options.keys() - {'activation', 'temperature'})
    if kind != 'linear' or unknown:
        what = f'type {kind!r}' if kind != 'linear' else f'key {unknown[0]!r}'
        raise ValueError(f"unknown router {what}: set router='sigmoid', 'softmax', or dict(activation=, temperature=)")
    return Router(in_channels, num_experts, **options)
