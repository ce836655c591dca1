"""C2PSA, the attention block at the end of YOLO11's backbone.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11; the attention is that of YOLOv10's partial
self-attention (https://arxiv.org/abs/2405.14458, section 3.3). Half of the channels pass through a chain of attention
blocks.

Shapes: B batch, C channels, h attended channels, N = H * W positions, A heads, d channels of a head, q of a key.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdyn.registry import MODELS

from .conv_unit import YOLO_ACT, YOLO_NORM, Config, conv_bn_act

HEAD_CHANNELS = 64


class Attention(nn.Module):
    """Multi-head self-attention over positions, with keys half as wide as values and a 3x3 depthwise position term.

    Args:
        channels: Channels h; there is one head per 64 channels.
        norm_cfg: Norm layers.

    Raises:
        ValueError: There are fewer than 64 channels, or the heads do not divide them.
    """

    def __init__(self, channels: int, norm_cfg: Config = YOLO_NORM) -> None:
        super().__init__()
        self.num_heads = channels // HEAD_CHANNELS
        if self.num_heads < 1 or channels % self.num_heads:
            raise ValueError(
                f'attention needs at least {HEAD_CHANNELS} channels, and heads that divide them; '
                f'got {channels} channels and {self.num_heads} heads'
            )
        self.head_channels = channels // self.num_heads
        self.key_channels = self.head_channels // 2
        self.scale = self.key_channels**-0.5
        linear: Config = dict(norm_cfg=norm_cfg, act_cfg=None)
        self.qkv = conv_bn_act(channels, channels + 2 * self.key_channels * self.num_heads, **linear)
        self.position = conv_bn_act(channels, channels, 3, groups=channels, **linear)
        self.proj = conv_bn_act(channels, channels, **linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, H, W) -> (B, h, H, W)."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, self.num_heads, -1, height * width)  # (B, A, 2q + d, N)
        q, k, v = qkv.split((self.key_channels, self.key_channels, self.head_channels), dim=2)
        weights = (q.transpose(2, 3) @ k * self.scale).softmax(dim=-1)  # (B, A, N queries, N keys)
        attended = v @ weights.transpose(2, 3)  # (B, A, d, N)
        attended = attended.reshape(batch, channels, height, width)
        values = v.reshape(batch, channels, height, width)
        return self.proj(attended + self.position(values))


class PSABlock(nn.Module):
    """Attention, then a feed-forward network of two 1x1 convolutions, each with a shortcut.

    Args:
        channels: Channels h.
        norm_cfg: Norm layers.
        act_cfg: Activation between the two convolutions.
    """

    def __init__(self, channels: int, norm_cfg: Config = YOLO_NORM, act_cfg: Config = YOLO_ACT) -> None:
        super().__init__()
        self.attention = Attention(channels, norm_cfg)
        self.ffn = nn.Sequential(
            conv_bn_act(channels, 2 * channels, norm_cfg=norm_cfg, act_cfg=act_cfg),
            conv_bn_act(2 * channels, channels, norm_cfg=norm_cfg, act_cfg=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, H, W) -> (B, h, H, W)."""
        x = x + self.attention(x)
        return x + self.ffn(x)


@MODELS.register_module()
class C2PSA(BaseModule):
    """CSP block whose second half of channels goes through attention blocks.

    Args:
        channels: Channels C of input and output; half of them are attended.
        num_blocks: Attention blocks in the chain.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation.

    Raises:
        ValueError: ``channels`` is odd, or as in :class:`Attention`.

    Example:
        >>> C2PSA(128)(torch.rand(2, 128, 20, 20)).shape
        torch.Size([2, 128, 20, 20])
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int = 1,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if channels % 2:
            raise ValueError(f'channels must be even, got {channels}')
        norm_act: Config = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.main_conv = conv_bn_act(channels, channels, **norm_act)
        self.blocks = nn.Sequential(*(PSABlock(channels // 2, **norm_act) for _ in range(num_blocks)))
        self.final_conv = conv_bn_act(channels, channels, **norm_act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        passed, attended = self.main_conv(x).chunk(2, dim=1)  # 2 x (B, h, H, W)
        return self.final_conv(torch.cat((passed, self.blocks(attended)), dim=1))
