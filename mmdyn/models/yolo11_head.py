"""YOLO11 head module: YOLOv8's regression branch, and a class branch of depthwise-separable convolutions.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11. Loss, assigner and decoding are MMYOLO's
``YOLOv8Head``, which takes this as its ``head_module``.
"""

import torch
from mmyolo.models.dense_heads import YOLOv8HeadModule
from mmyolo.registry import MODELS
from torch import nn

from mmdyn.layers.conv_unit import conv_bn_act

from .initialisation import reset_convs


@MODELS.register_module()
class YOLO11HeadModule(YOLOv8HeadModule):
    """Head module of YOLO11: class logits and box distances of every level.

    Arguments are those of ``YOLOv8HeadModule``; ``in_channels`` is (256, 512, 1024), on scales m, l, x (256, 512, 512),
    before scaling.
    """

    def _init_layers(self) -> None:
        first = self.in_channels[0]
        bins = 4 * self.reg_max
        reg_width = max(16, first // 4, bins)
        cls_width = max(first, min(self.num_classes, 100))
        around = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.reg_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, reg_width, 3, **around),
                conv_bn_act(reg_width, reg_width, 3, **around),
                nn.Conv2d(reg_width, bins, 1),
            )
            for channels in self.in_channels
        )
        self.cls_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, channels, 3, groups=channels, **around),
                conv_bn_act(channels, cls_width, **around),
                conv_bn_act(cls_width, cls_width, 3, groups=cls_width, **around),
                conv_bn_act(cls_width, cls_width, **around),
                nn.Conv2d(cls_width, self.num_classes, 1),
            )
            for channels in self.in_channels
        )
        self.register_buffer('proj', torch.arange(self.reg_max, dtype=torch.float), persistent=False)

    def init_weights(self, prior_prob: float = 0.01) -> None:
        """Initialise the convolutions as PyTorch does, and the biases of the last ones as YOLOv8 does.

        Args:
            prior_prob: Unused, as in ``YOLOv8HeadModule``.
        """
        reset_convs(self)
        super().init_weights(prior_prob)
