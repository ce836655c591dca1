"""DynamicConv: a convolution whose kernel is mixed from experts, anew for every sample.

ParameterNet: Parameters Are All You Need for Large-scale Visual Pretraining of Mobile Networks, Han et al., CVPR 2024,
https://arxiv.org/abs/2306.14525, eq. 3-5. Parameters and their initialisation are those of ``timm.layers.CondConv2d``;
what is added is the routing inside, the interface that MMCV asks of a ``conv_cfg`` type, and an execution of our own.

Shapes: B batch, M experts, I O in and out channels, g groups, k kernel size, P = O * I/g * k * k, H W height and width.
"""

import torch
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmdyn.registry import MODELS

from .execution import Geometry, Pair
from .global_mean import global_mean
from .mixture import mixed_conv2d
from .routing import Routing, RoutingKind


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
) -> Tensor:
    """Convolve every sample with its own mixture of expert kernels.

    ``y_b = conv(x_b, sum_m routing_bm experts_m) + sum_m routing_bm expert_biases_m + shared_bias``

    Mixed kernels of more than 8 MiB are not kept for the backward pass, which can itself be differentiated. Under
    autocast the convolution runs in autocast's precision, and experts are mixed in it where the batch is not smaller
    than their number, else in their own.

    Args:
        x: Input, (B, I, H, W).
        experts: Expert kernels, (M, O, I/g, k, k).
        routing: Weight of every expert for every sample, (B, M).
        expert_biases: Expert biases, (M, O), or None.
        stride: As in ``torch.nn.functional.conv2d``, as are the three below.
        padding: Zeros added on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Blocks of channels convolved apart.
        shared_bias: A bias that does not depend on the routing, (O,), or None.

    Returns:
        Output, (B, O, H', W'), in the memory format of ``x``.

    Raises:
        ValueError: ``routing`` is not (B, M).
    """
    expected = (x.shape[0], experts.shape[0])
    if not torch.jit.is_tracing() and routing.shape != expected:
        raise ValueError(f'routing must be (batch, experts) = {expected}, got {tuple(routing.shape)}')
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    return _run(x, experts, routing, expert_biases, shared_bias, geometry)


def _run(
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    expert_biases: Tensor | None,
    shared_bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return mixed_conv2d(x, experts, routing, _mix_biases(routing, expert_biases, shared_bias), geometry)
    if x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return mixed_conv2d(x, experts, routing, _mix_biases(routing, expert_biases, shared_bias), geometry)


def _mix_biases(routing: Tensor, expert_biases: Tensor | None, shared_bias: Tensor | None) -> Tensor | None:
    """One bias per sample, (B, O), or None."""
    mixed = None if expert_biases is None else routing.to(expert_biases.dtype) @ expert_biases
    if mixed is None or shared_bias is None:
        return mixed if shared_bias is None else shared_bias.expand(routing.shape[0], -1)
    return mixed + shared_bias


@MODELS.register_module()
class DynamicConv(CondConv2d):
    """Dynamic convolution: routing and expert mixture in one layer, to be used wherever a ``Conv2d`` stands.

    ``dict(type='DynamicConv', num_experts=4)`` as a ``conv_cfg`` (``'mmdyn.DynamicConv'`` outside MMYOLO) makes any
    ``ConvModule`` dynamic. No norm and no activation inside, and by default no bias.

    State dict: ``weight`` (M, P), ``bias`` (M, O) if any, ``routing.weight`` (M, I), ``routing.bias`` (M). Without
    the two routing entries it is the state dict of ``timm.layers.CondConv2d``. A folded batch norm adds
    ``shared_bias`` (O).

    Args:
        in_channels: Channels I of the input.
        out_channels: Channels O of the output.
        kernel_size: Kernel size k, or (height, width).
        stride: Stride, or (vertical, horizontal).
        padding: Zeros added on both sides, or (vertical, horizontal).
        dilation: Spacing of the kernel's taps, or (vertical, horizontal).
        groups: Blocks of channels convolved apart; divides ``in_channels`` and ``out_channels``.
        bias: Whether every expert has a bias.
        num_experts: Experts M.
        routing: ``'sigmoid'`` or ``'softmax'``, see :class:`Routing`.
        temperature: Divides the routing logits.

    Raises:
        ValueError: An argument below one, or channels that ``groups`` does not divide, or as in :class:`Routing`.
    """

    # What mmcv.cnn.ConvModule reads from the layer it builds.
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
        routing: RoutingKind = 'sigmoid',
        temperature: float = 1.0,
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
        self.routing = Routing(in_channels, num_experts, routing, temperature)
        self.shared_bias: nn.Parameter | None  # what a folded batch norm leaves
        self.register_parameter('shared_bias', None)

    @property
    def experts(self) -> Tensor:
        """Expert kernels, (M, O, I/g, k, k): a view of ``weight``."""
        return self.weight.view(self.num_experts, *self.weight_shape)

    def init_weights(self) -> None:
        """Initialise experts and routing again, as at construction; MMCV would use the fan of the flat weight."""
        self.reset_parameters()
        self.routing.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # routing lives inside
        """Convolve a batch.

        Args:
            x: Input, (B, I, H, W).

        Returns:
            Output, (B, O, H', W').
        """
        x, pooled = global_mean(x)
        geometry = Geometry(self.stride, self.padding, self.dilation, self.groups)
        return _run(x, self.experts, self.routing(pooled), self.bias, self.shared_bias, geometry)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, dilation={self.dilation}, groups={self.groups}, '
            f'bias={self.bias is not None}, num_experts={self.num_experts}'
            + (', shared_bias=True' if self.shared_bias is not None else '')
        )


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}')
