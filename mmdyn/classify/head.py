"""Classification head of YOLO11: one convolution, the mean over the image, and a linear layer.

Facts of the architecture: https://docs.ultralytics.com/tasks/classify.
"""

from collections.abc import Sequence

from mmpretrain.models.heads import LinearClsHead
from mmyolo.registry import MODELS
from torch import Tensor, nn

from mmdyn.layers.conv_unit import conv_bn_act

from .task import CLASSIFY

WIDTH = 1280  # of the features before the linear layer, in all scales


@MODELS.register_module()
class YOLO11ClassifyHead(LinearClsHead):
    """mmpretrain's ``LinearClsHead`` behind a 1x1 convolution, with PyTorch's own initialisation.

    Args:
        num_classes: Number of classes.
        in_channels: Of the backbone's last output.
        dropout: Share of the features that training sets to zero.
        loss: Of the logits.
        norm_cfg: Of the convolution.
        act_cfg: Of the convolution.
        **kwargs: As in ``LinearClsHead``.

    Example:
        >>> import torch
        >>> head = YOLO11ClassifyHead(num_classes=10, in_channels=256)
        >>> head((torch.rand(2, 256, 7, 7),)).shape
        torch.Size([2, 10])
    """

    task = CLASSIFY.name

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        dropout: float = 0.0,
        loss: dict = dict(type='mmpretrain.CrossEntropyLoss'),
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='SiLU', inplace=True),
        **kwargs,
    ) -> None:
        super().__init__(num_classes, WIDTH, init_cfg=None, loss=loss, **kwargs)
        self.conv = conv_bn_act(in_channels, WIDTH, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.dropout = nn.Dropout(dropout)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """The features before the linear layer, (B, 1280), of the backbone's outputs, the last (B, C, H, W)."""
        return self.dropout(self.conv(feats[-1]).mean((2, 3)))
