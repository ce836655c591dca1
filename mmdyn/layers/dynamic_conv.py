"""DynamicConv: a convolution that mixes a kernel for every sample from a set of experts.

ParameterNet: Parameters Are All You Need for Large-scale Visual Pretraining of Mobile Networks, Han et al., CVPR 2024,
https://arxiv.org/abs/2306.14525, eq. 3-5::

    y_b = conv(x_b, sum_m routing_bm W_m),    routing_b = router(pool(x_b))

Pool (``global_mean.py``), route (``router.py``), mix and run (``execution.py``). Parameters and their initialisation
are those of ``timm.layers.CondConv2d``. The layer adds the router, the interface that MMCV requires of a ``conv_cfg``
type, and its own execution.

Shapes: B batch, M experts, I O in and out channels, g groups, k kernel size, P = O * I/g * k * k, H W height and width.
"""

import torch
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmdyn.registry import MODELS

from .execution import Geometry, Pair, mixed_conv2d
from .global_mean import global_mean
from .router import Activation, Router, RouterConfig, build_router


def dynamic_conv2d(
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    expert_biases: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    shared_bias: Tensor | None = None,
    taps: Tensor | None = None,
) -> Tensor:
    """Convolve every sample with its own mixture of expert kernels.

    ``y_b = conv(x_b, sum_m routing_bm experts_m) + sum_m routing_bm expert_biases_m + shared_bias``

    Mixed kernels of more than 8 MiB are not kept for the backward pass, which can itself be differentiated. Under
    autocast the convolution runs in autocast's precision. Experts are mixed in it if the batch has at least as many
    samples as there are experts, otherwise in their own precision.

    Args:
        x: Input, (B, I, H, W).
        experts: Expert kernels, (M, O, I/g, k, k).
        routing: Routing weights, of every expert for every sample, (B, M).
        expert_biases: Expert biases, (M, O), or None.
        stride: As in ``torch.nn.functional.conv2d``, like the next three.
        padding: Zeros added on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Groups of channels that are convolved separately.
        shared_bias: A bias that does not depend on the routing, (O,), or None.
        taps: Scales the taps of every sample's mixed kernel, (B, k, k), or None.

    Returns:
        Output, (B, O, H', W'), in the memory format of ``x``.

    Raises:
        ValueError: ``routing`` is not (B, M).

    Example:
        The definition, as a plain loop:

        >>> x, experts, routing = torch.rand(3, 8, 16, 16), torch.rand(4, 12, 8, 3, 3), torch.rand(3, 4)
        >>> y = dynamic_conv2d(x, experts, routing, padding=1)
        >>> for b in range(len(x)):
        ...     kernel = sum(routing[b, m] * experts[m] for m in range(len(experts)))  # (O, I, k, k)
        ...     expected = torch.nn.functional.conv2d(x[b : b + 1], kernel, padding=1)
        ...     assert torch.allclose(y[b : b + 1], expected, rtol=1e-4)
        >>> y.shape
        torch.Size([3, 12, 16, 16])
    """
    expected = (x.shape[0], experts.shape[0])
    if not torch.jit.is_tracing() and routing.shape != expected:
        raise ValueError(f'routing must be (batch, experts) = {expected}, got {tuple(routing.shape)}')
    device = x.device.type
    if torch.is_autocast_enabled(device):  # for the convolution; routing and biases keep their precision
        x = x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(device))
        geometry = stride, padding, dilation, groups
        with torch.autocast(device, enabled=False):
            return dynamic_conv2d(x, experts, routing, expert_biases, *geometry, shared_bias, taps)
    bias = None if shared_bias is None else shared_bias.expand(routing.shape[0], -1)  # (B, O)
    if expert_biases is not None:
        mixed = routing.to(expert_biases.dtype) @ expert_biases
        bias = mixed if bias is None else mixed + bias
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    return mixed_conv2d(x, experts, routing, bias, geometry, taps)


@MODELS.register_module()
class DynamicConv(CondConv2d):
    """Dynamic convolution: router and expert mixture in one layer, for use in place of a ``Conv2d``.

    ``dict(type='DynamicConv', num_experts=4)`` as a ``conv_cfg`` (``'mmdyn.DynamicConv'`` outside MMYOLO) makes any
    ``ConvModule`` dynamic. The layer has no norm and no activation, and by default no bias.

    State dict: ``weight`` (M, P), ``bias`` (M, O) if any, ``router.weight`` (M, I), ``router.bias`` (M). Without the
    two entries of the router it is the state dict of ``timm.layers.CondConv2d``. A folded batch norm adds
    ``shared_bias`` (O). Checkpoints that call the router ``routing`` load, too.

    Args:
        in_channels: Channels I of the input.
        out_channels: Channels O of the output.
        kernel_size: Kernel size k, or (height, width).
        stride: Stride, or (vertical, horizontal).
        padding: Zeros added on both sides, or (vertical, horizontal).
        dilation: Spacing of the kernel's taps, or (vertical, horizontal).
        groups: Groups of channels that are convolved separately; divides ``in_channels`` and ``out_channels``.
        bias: Whether every expert has a bias.
        num_experts: Experts M.
        router: ``'sigmoid'``, ``'softmax'``, or ``dict(activation=…, temperature=…)``, see :class:`Router`. None for a
            layer whose caller passes the routing weights.
        temperature: Temperature of the router, as in earlier versions; ``router`` can set it.
        routing: Activation of the router, as in earlier versions; ``router`` can set it.

    Raises:
        ValueError: An argument is below one, ``groups`` does not divide the channels, or as in :class:`Router`.

    Example:
        >>> layer = DynamicConv(64, 128, 3, stride=2, padding=1, num_experts=4)
        >>> layer(torch.rand(8, 64, 80, 80)).shape
        torch.Size([8, 128, 40, 40])
    """

    # mmcv.cnn.ConvModule reads these from the layer that it builds.
    transposed = False
    output_padding = (0, 0)

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
        router: RouterConfig | None = 'sigmoid',
        temperature: float | None = None,
        routing: Activation | None = None,
    ) -> None:
        _check_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=min(_pair(kernel_size)),
            stride=min(_pair(stride)),
            dilation=min(_pair(dilation)),
            groups=groups,
            num_experts=num_experts,
        )
        if in_channels % groups or out_channels % groups:
            raise ValueError(f'groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, _pair(padding), dilation, groups, bias, num_experts
        )
        cfg = router_config(router, temperature, routing)
        self.router: Router | None = None if cfg is None else build_router(cfg, in_channels, num_experts)
        self.shared_bias: nn.Parameter | None  # of a folded batch norm
        self.register_parameter('shared_bias', None)

    @property
    def experts(self) -> Tensor:
        """Expert kernels, (M, O, I/g, k, k): a view of ``weight``."""
        return self.weight.view(self.num_experts, *self.weight_shape)

    def init_weights(self) -> None:
        """Initialise experts and router again, as at construction; MMCV would use the fan of the flat weight."""
        self.reset_parameters()
        if self.router is not None:
            self.router.reset_parameters()

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Convolve a batch.

        Args:
            x: Input, (B, I, H, W).
            routing: Routing weights, (B, M); by default those of the layer's own router.

        Returns:
            Output, (B, O, H', W').

        Raises:
            ValueError: The layer has no router, and got no routing weights.
        """
        if routing is None:
            if self.router is None:
                raise ValueError('a layer with router=None needs routing weights: pass a tensor (batch, experts)')
            x, pooled = global_mean(x)
            routing = self.router(pooled)
        geometry = self.stride, self.padding, self.dilation, self.groups
        return dynamic_conv2d(x, self.experts, routing, self.bias, *geometry, self.shared_bias)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in ('weight', 'bias'):
            if f'{prefix}routing.{name}' in state_dict:
                state_dict[f'{prefix}router.{name}'] = state_dict.pop(f'{prefix}routing.{name}')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, dilation={self.dilation}, groups={self.groups}, '
            f'bias={self.bias is not None}, num_experts={self.num_experts}'
            + (', shared_bias=True' if self.shared_bias is not None else '')
        )


def dynamic_layers(model: nn.Module) -> dict[str, DynamicConv]:
    """The dynamic convolutions of a model, by name, in its order.

    Example:
        >>> list(dynamic_layers(nn.Sequential(nn.Conv2d(3, 8, 3), DynamicConv(8, 8, 3))))
        ['1']
    """
    return {name: m for name, m in model.named_modules() if isinstance(m, DynamicConv)}


def router_config(
    router: RouterConfig | None, temperature: float | None = None, routing: Activation | None = None
) -> RouterConfig | None:
    """The config of a router, with the arguments of earlier versions: ``routing`` was the activation."""
    if routing is None and temperature is None:
        return router
    options = {} if router is None else dict(activation=router) if isinstance(router, str) else dict(router)
    former = dict(activation=routing, temperature=temperature)
    return options | {name: value for name, value in former.items() if value is not None}


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}')
