"""Router: computes the weight of every expert for a sample.

A linear layer on the globally pooled input, or an MLP of two layers, then sigmoid (CondConv,
https://arxiv.org/abs/1904.04971; ParameterNet, https://arxiv.org/abs/2306.14525, eq. 5) or softmax with a temperature
(https://arxiv.org/abs/1912.03458, eq. 4). ParameterNet's text has the MLP, with as many hidden channels as the input
has; its code and the published detectors have the linear layer.

Shapes: B batch, C channels, H hidden channels, M experts.
"""

import functools
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .running_norm import RunningNorm

Activation = Literal['sigmoid', 'softmax']
RouterConfig = Activation | Mapping[str, Any]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'sigmoid': torch.sigmoid,
    'softmax': functools.partial(torch.softmax, dim=-1),
}
TYPES = ('linear', 'mlp', 'uniform')
KEYS = ('activation', 'temperature', 'hidden', 'normalise', 'top_k')


class RouterFeatures(nn.Module):
    """What comes before the last layer of a router: standardised channels, hidden channels, or both.

    State dict: ``norm.mean``, ``norm.var`` and ``norm.batches`` with ``normalise``; ``weight`` (H, C) with ``hidden``,
    and ``bias`` (H) once the norm is folded.

    Args:
        in_channels: Channels C of the pooled input.
        hidden: Hidden channels H of a linear layer without bias and a ReLU; None for none.
        normalise: Standardise the pooled input by its running mean and variance, see :class:`RunningNorm`.
    """

    bias: nn.Parameter | None

    def __init__(self, in_channels: int, hidden: int | None = None, normalise: bool = False) -> None:
        super().__init__()
        self.out_channels = hidden or in_channels
        self.norm = RunningNorm(in_channels) if normalise else None
        self.weight = nn.Parameter(torch.empty(hidden, in_channels)) if hidden else None
        self.register_parameter('bias', None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as ``nn.Linear`` does."""
        if self.weight is not None:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.norm is not None:
            self.norm.reset_statistics()

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) -> (B, H), or (B, C) without hidden channels."""
        if self.norm is not None:
            pooled = self.norm(pooled)
        return pooled if self.weight is None else F.relu(F.linear(pooled, self.weight, self.bias))


class Router(nn.Module):
    """Routing weights of a batch from its globally pooled features: one or two linear layers and an activation.

    State dict: ``weight`` (M, C) and ``bias`` (M), and ``features`` before them if the router has any, see
    :class:`RouterFeatures`; then ``weight`` is (M, H). It computes in the type of its parameters, also under autocast:
    the sigmoid of a half-precision logit is coarse, and the layers are tiny. It has no ``nn.Linear``, so tools that
    replace linear layers do not change it.

    Args:
        in_channels: Channels C of the input.
        num_experts: Experts M to weigh.
        activation: ``'sigmoid'`` weights every expert independently, ``'softmax'`` makes the weights sum to one.
        temperature: Divides the logits; above one flattens the weights, below one sharpens them.
        hidden: Hidden channels of an MLP with a ReLU: a number H, or a fraction of C. None for a single linear layer.
        normalise: Standardise every channel of the pooled input by its running mean and variance. Images then differ
            by order one in every layer; without it they differ by a few percent of a channel's mean.
        top_k: Keep only this many of the largest weights of a sample, scaled to the sum of all.
        uniform: All weights are equal and stay so: the control that has the parameters of experts and no routing.

    Raises:
        ValueError: ``activation`` is unknown; ``temperature`` or ``hidden`` is not positive; or ``top_k`` is not from
            1 to ``num_experts``.

    Example:
        >>> router = Router(64, num_experts=4, activation='softmax', temperature=30.0)
        >>> router(torch.rand(8, 64)).sum(1)
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000],
               grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        activation: Activation = 'sigmoid',
        temperature: float = 1.0,
        hidden: int | float | None = None,
        normalise: bool = False,
        top_k: int | None = None,
        uniform: bool = False,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f'router activation must be one of {sorted(_ACTIVATIONS)}, got {activation!r}')
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise ValueError(f'temperature must be positive, got {temperature!r}')
        if top_k is not None and (not isinstance(top_k, int) or not 1 <= top_k <= num_experts):
            raise ValueError(f'top_k of a router must be from 1 to its {num_experts} experts, got {top_k!r}')
        if not isinstance(normalise, bool):
            raise ValueError(f'normalise must be True or False, got {normalise!r}')
        self.in_channels, self.num_experts = in_channels, num_experts
        self.activation = activation
        self.temperature = temperature
        self.top_k, self.uniform = top_k, uniform
        width = None if hidden is None else hidden_channels(hidden, in_channels)
        self.features = RouterFeatures(in_channels, width, normalise) if width or normalise else None
        self.weight = nn.Parameter(torch.empty(num_experts, width or in_channels))
        self.bias = nn.Parameter(torch.empty(num_experts))
        self.reset_parameters()
        if uniform:
            self.requires_grad_(False)

    def reset_parameters(self) -> None:
        """Initialise as ``nn.Linear`` does, or with zeros if the weights are uniform."""
        if self.uniform:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)
            return
        if self.features is not None:
            self.features.reset_parameters()
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.weight.shape[1])
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
        features = pooled.to(self.weight.dtype)
        if self.features is not None:
            features = self.features(features)
        logits = F.linear(features, self.weight, self.bias)  # (B, M)
        weights = _ACTIVATIONS[self.activation](logits if self.temperature == 1 else logits / self.temperature)
        return weights if self.top_k is None else _largest(weights, self.top_k)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        text = f'{self.in_channels}, {self.num_experts}, activation={self.activation}, temperature={self.temperature}'
        if self.features is not None and self.features.weight is not None:
            text += f', hidden={self.features.out_channels}'
        return text + (f', top_k={self.top_k}' if self.top_k else '')


def _largest(weights: Tensor, number: int) -> Tensor:
    """The largest weights of every sample, scaled to the sum of all; zero for the others. (B, M) -> (B, M)."""
    values, experts = weights.topk(number, dim=-1)
    kept = torch.zeros_like(weights).scatter(-1, experts, values)
    tiny = torch.finfo(weights.dtype).tiny  # all weights may underflow
    return kept * (weights.sum(-1, keepdim=True) / values.sum(-1, keepdim=True).clamp(min=tiny))


def hidden_channels(hidden: int | float, in_channels: int) -> int:
    """Hidden channels of a router: a number, or a fraction of the channels of its input, at least one.

    Raises:
        ValueError: ``hidden`` is not positive.
    """
    if isinstance(hidden, bool) or not isinstance(hidden, int | float) or not 0 < hidden < math.inf:
        raise ValueError(f'hidden must be at least 1, or a fraction of the channels such as 0.25, got {hidden!r}')
    return hidden if isinstance(hidden, int) else max(1, int(hidden * in_channels))


def build_router(cfg: RouterConfig, in_channels: int, num_experts: int) -> Router:
    """Build the router that a config describes.

    Args:
        cfg: An activation, or a dict with any of the arguments of :class:`Router` and ``type``: ``'linear'`` (the
            default), ``'mlp'`` with as many hidden channels as the input has, unless ``hidden`` says otherwise, or
            ``'uniform'``.
        in_channels: Channels of the input.
        num_experts: Experts to weigh.

    Raises:
        ValueError: A type or key is unknown, ``hidden`` is given to a linear router, or as in :class:`Router`.

    Example:
        The MLP of ParameterNet's text, and that of Dynamic Convolution (add a :class:`TemperatureHook`):

        >>> build_router(dict(type='mlp'), 64, 4)
        Router(
          64, 4, activation=sigmoid, temperature=1.0, hidden=64
          (features): RouterFeatures()
        )
        >>> chen = build_router(dict(type='mlp', hidden=0.25, activation='softmax'), 64, 4)
    """
    if not isinstance(cfg, str | Mapping):
        raise ValueError(f"invalid router {cfg!r}: set 'sigmoid', 'softmax' or a dict")
    options: dict[str, Any] = dict(activation=cfg) if isinstance(cfg, str) else dict(cfg)
    kind = options.pop('type', 'linear')
    if kind not in TYPES:
        raise ValueError(f'unknown router type {kind!r}: set one of {", ".join(TYPES)}')
    unknown = sorted(options.keys() - set(KEYS))
    if unknown:
        near = get_close_matches(str(unknown[0]), KEYS, 1)
        meant = f'did you mean {near[0]!r}? ' if near else ''
        raise ValueError(f'unknown router key {unknown[0]!r}: {meant}The keys are type, {", ".join(KEYS)}')
    if kind == 'mlp':
        options['hidden'] = in_channels if options.get('hidden') is None else options['hidden']
    elif options.get('hidden') is not None:
        raise ValueError(f"hidden={options['hidden']} is of an MLP: set router=dict(type='mlp', hidden=…)")
    if kind == 'uniform' and options.keys() - {'activation', 'temperature'}:
        raise ValueError(f'a uniform router has no {sorted(options)[0]}: its weights do not depend on the image')
    return Router(in_channels, num_experts, **options, uniform=kind == 'uniform')
