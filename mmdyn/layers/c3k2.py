"""C3k2, the block of YOLO11, its parts, and its dynamic form C3k2_DynamicConv.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11. A C3k2 splits its input in two, runs a chain of
inner modules on the second half, keeps every intermediate, and fuses them all. The inner module is a bottleneck, or a
C3k (a small CSP block of two bottlenecks) where ``c3k`` is on. In C3k2_DynamicConv the second convolution of every
bottleneck, also of those inside a C3k, is a bare DynamicConv.

Shapes: B batch, C channels, h hidden channels, n inner modules, H W height and width.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdyn.registry import MODELS

from .conv_unit import STATIC_CONV, YOLO_ACT, YOLO_NORM, Config, build_conv_unit, conv_bn_act
from .dynamic_conv import DynamicConv
from .global_mean import global_mean
from .routing import Routing, RoutingKind, SharedRouting


class Bottleneck(BaseModule):
    """Two convolutions, and the input added where the shapes allow it.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output.
        expansion: Hidden channels as a fraction of ``out_channels``.
        add_identity: Add the input when both channel counts are the same.
        conv2_cfg: The second convolution, see :func:`build_conv_unit`.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: float = 0.5,
        add_identity: bool = True,
        conv2_cfg: Config = STATIC_CONV,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(init_cfg)
        hidden = int(out_channels * expansion)
        self.conv1 = conv_bn_act(in_channels, hidden, 3, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = build_conv_unit(conv2_cfg, hidden, out_channels, 3, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.add_identity = add_identity and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        y = self.conv2(self.conv1(x))
        return x + y if self.add_identity else y


@MODELS.register_module()
class C3k(BaseModule):
    """CSP block of three 1x1 convolutions around a chain of bottlenecks with 3x3 kernels.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output; half of them are hidden.
        num_blocks: Bottlenecks in the chain.
        add_identity: Shortcut of the bottlenecks.
        conv2_cfg: Second convolution of the bottlenecks.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 2,
        add_identity: bool = True,
        conv2_cfg: Config = STATIC_CONV,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(init_cfg)
        hidden = out_channels // 2
        around: Config = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.main_conv = conv_bn_act(in_channels, hidden, **around)
        self.short_conv = conv_bn_act(in_channels, hidden, **around)
        self.blocks = nn.Sequential(
            *(Bottleneck(hidden, hidden, 1.0, add_identity, conv2_cfg, **around) for _ in range(num_blocks))
        )
        self.final_conv = conv_bn_act(2 * hidden, out_channels, **around)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        return self.final_conv(torch.cat((self.blocks(self.main_conv(x)), self.short_conv(x)), dim=1))


@MODELS.register_module()
class C3k2(BaseModule):
    """The block of YOLO11.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output.
        num_blocks: Inner modules n.
        c3k: Inner modules are :class:`C3k` instead of bottlenecks.
        expansion: Hidden channels h as a fraction of ``out_channels``.
        add_identity: Shortcut of the bottlenecks.
        conv2_cfg: Second convolution of the bottlenecks.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 1,
        c3k: bool = False,
        expansion: float = 0.5,
        add_identity: bool = True,
        conv2_cfg: Config = STATIC_CONV,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(init_cfg)
        hidden = int(out_channels * expansion)
        around: Config = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        inner: Config = dict(add_identity=add_identity, conv2_cfg=conv2_cfg, **around)
        block = C3k if c3k else Bottleneck
        self.main_conv = conv_bn_act(in_channels, 2 * hidden, **around)
        self.blocks = nn.ModuleList(block(hidden, hidden, **inner) for _ in range(num_blocks))
        self.final_conv = conv_bn_act((2 + num_blocks) * hidden, out_channels, **around)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        return self._fuse(list(self.main_conv(x).chunk(2, dim=1)))  # 2 x (B, h, H, W)

    def _fuse(self, features: list[Tensor]) -> Tensor:
        """Run the inner modules on the second half, and fuse all: 2 x (B, h, H, W) -> (B, out_channels, H, W)."""
        for block in self.blocks:
            features.append(block(features[-1]))
        return self.final_conv(torch.cat(features, dim=1))  # from (B, (2 + n) h, H, W)


@MODELS.register_module()
class C3k2_DynamicConv(C3k2):
    """C3k2 with a bare DynamicConv as the second convolution of every bottleneck.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output.
        num_experts: Experts of every DynamicConv.
        routing: Routing of every DynamicConv.
        temperature: Temperature of every routing.
        shared_router: One router for the block, on what its first inner module gets, instead of one for every
            DynamicConv.
        **kwargs: As in :class:`C3k2`, except ``conv2_cfg``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_experts: int = 4,
        routing: RoutingKind = 'sigmoid',
        temperature: float = 1.0,
        shared_router: bool = False,
        **kwargs,
    ) -> None:
        dynamic = dict(type=DynamicConv, num_experts=num_experts, routing=routing, temperature=temperature)
        super().__init__(in_channels, out_channels, conv2_cfg=dynamic, **kwargs)
        self.router: Routing | None = None
        if shared_router:
            hidden = self.main_conv.out_channels // 2
            self.router = Routing(hidden, num_experts, routing, temperature)
            for layer in self._layers():
                layer.routing = SharedRouting(num_experts)  # type: ignore[assignment]

    def _layers(self) -> list[DynamicConv]:
        return [m for m in self.blocks.modules() if isinstance(m, DynamicConv)]

    def _fuse(self, features: list[Tensor]) -> Tensor:
        """Route for all inner modules if the router is shared, and go on as in :class:`C3k2`."""
        if self.router is None:
            return super()._fuse(features)
        features[-1], pooled = global_mean(features[-1])
        self._share(self.router(pooled))  # (B, M)
        fused = super()._fuse(features)
        self._share(None)  # nothing of a batch stays
        return fused

    def _share(self, weights: Tensor | None) -> None:
        for layer in self._layers():
            layer.routing.weights = weights  # type: ignore[assignment]
