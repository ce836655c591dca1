"""SPPF: spatial pyramid pooling by chained max-pools, as in YOLOv5 and later (https://docs.ultralytics.com/models/yolo11).

MMYOLO's ``SPPFBottleneck`` with the registry name and arguments of this package.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdyn.registry import MODELS

from .conv_unit import YOLO_ACT, YOLO_NORM, Config, conv_bn_act


@MODELS.register_module()
class SPPF(BaseModule):
    """Three chained max-pools between two 1x1 convolutions.

    Args:
        in_channels: Channels of the input; half of them are hidden.
        out_channels: Channels of the output.
        kernel_size: Size of the max-pools, odd.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation.

    Example:
        >>> SPPF(64, 128)(torch.rand(2, 64, 20, 20)).shape
        torch.Size([2, 128, 20, 20])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(init_cfg)
        hidden = in_channels // 2
        self.conv1 = conv_bn_act(in_channels, hidden, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.pool = nn.MaxPool2d(kernel_size, stride=1, padding=kernel_size // 2)
        self.conv2 = conv_bn_act(4 * hidden, out_channels, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        pyramid = [self.conv1(x)]
        for _ in range(3):
            pyramid.append(self.pool(pyramid[-1]))
        return self.conv2(torch.cat(pyramid, dim=1))
