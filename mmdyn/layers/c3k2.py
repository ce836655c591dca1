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
from .dynamic_conv import DynamicConv, router_config
from .global_mean import global_mean
from .router import Activation, Router, RouterConfig, build_router


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

    def forward(self, x: Tensor, *routing: Tensor) -> Tensor:
        """(B, C, H, W), and for a dynamic second convolution without a router (B, M) -> (B, out_channels, H, W)."""
        y = self.conv2(self.conv1(x), *routing)
        return x + y if self.add_identity else y


@MODELS.register_module()
class C3k(BaseModule):
    """CSP block of three 1x1 convolutions and a chain of bottlenecks with 3x3 kernels.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output; half of them are hidden.
        num_blocks: Bottlenecks in the chain.
        add_identity: Shortcut of the bottlenecks.
        conv2_cfg: Second convolution of the bottlenecks.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation.

    Example:
        >>> C3k(64, 128)(torch.rand(2, 64, 40, 40)).shape
        torch.Size([2, 128, 40, 40])
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
        norm_act: Config = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.main_conv = conv_bn_act(in_channels, hidden, **norm_act)
        self.short_conv = conv_bn_act(in_channels, hidden, **norm_act)
        self.blocks = nn.Sequential(
            *(Bottleneck(hidden, hidden, 1.0, add_identity, conv2_cfg, **norm_act) for _ in range(num_blocks))
        )
        self.final_conv = conv_bn_act(2 * hidden, out_channels, **norm_act)

    def forward(self, x: Tensor, *routing: Tensor) -> Tensor:
        """(B, C, H, W), and (B, M) as in :class:`Bottleneck` -> (B, out_channels, H, W)."""
        y = self.main_conv(x)
        for block in self.blocks:
            y = block(y, *routing)
        return self.final_conv(torch.cat((y, self.short_conv(x)), dim=1))


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

    Example:
        >>> C3k2(64, 128, num_blocks=2, c3k=True)(torch.rand(2, 64, 40, 40)).shape
        torch.Size([2, 128, 40, 40])
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
        norm_act: Config = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        inner: Config = dict(add_identity=add_identity, conv2_cfg=conv2_cfg, **norm_act)
        block = C3k if c3k else Bottleneck
        self.main_conv = conv_bn_act(in_channels, 2 * hidden, **norm_act)
        self.blocks = nn.ModuleList(block(hidden, hidden, **inner) for _ in range(num_blocks))
        self.final_conv = conv_bn_act((2 + num_blocks) * hidden, out_channels, **norm_act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        return self._fuse(list(self.main_conv(x).chunk(2, dim=1)))  # 2 x (B, h, H, W)

    def _fuse(self, features: list[Tensor], *routing: Tensor) -> Tensor:
        """Run the inner modules on the second half, and fuse all: 2 x (B, h, H, W) -> (B, out_channels, H, W)."""
        for block in self.blocks:
            features.append(block(features[-1], *routing))
        return self.final_conv(torch.cat(features, dim=1))  # from (B, (2 + n) h, H, W)


@MODELS.register_module()
class C3k2_DynamicConv(C3k2):
    """C3k2 with a bare DynamicConv as the second convolution of every bottleneck.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output.
        num_experts: Experts of every DynamicConv.
        router: Router of every DynamicConv, see :class:`DynamicConv`.
        temperature: Temperature of the router, as in earlier versions; ``router`` can set it.
        routing: Activation of the router, as in earlier versions; ``router`` can set it.
        shared_router: Use one router for the block, on the input of its first inner module, instead of one for every
            DynamicConv, as in CondConv's EfficientNet.
        **kwargs: As in :class:`C3k2`, except ``conv2_cfg``.

    Example:
        >>> block = C3k2_DynamicConv(64, 128, num_experts=4, shared_router=True)
        >>> block(torch.rand(2, 64, 40, 40)).shape
        torch.Size([2, 128, 40, 40])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_experts: int = 4,
        router: RouterConfig = 'sigmoid',
        temperature: float | None = None,
        shared_router: bool = False,
        routing: Activation | None = None,
        **kwargs,
    ) -> None:
        cfg = router_config(router, temperature, routing)
        conv2 = dict(type=DynamicConv, num_experts=num_experts, router=None if shared_router else cfg)
        super().__init__(in_channels, out_channels, conv2_cfg=conv2, **kwargs)
        self.router: Router | None = None
        if shared_router:
            self.router = build_router(cfg, self.main_conv.out_channels // 2, num_experts)  # type: ignore[arg-type]

    def _fuse(self, features: list[Tensor], *routing: Tensor) -> Tensor:
        """Route for all inner modules if the router is shared, and fuse as in :class:`C3k2`."""
        if self.router is None:
            return super()._fuse(features, *routing)
        features[-1], pooled = global_mean(features[-1])
        return super()._fuse(features, self.router(pooled))  # (B, M)
