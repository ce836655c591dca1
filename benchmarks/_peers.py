"""The baselines of the benchmarks: the published form of the dynamic convolution, and the original YOLO11."""

import sys

import torch
import torch.nn.functional as F
from _timing import ROOT
from timm.layers import CondConv2d
from torch import Tensor, nn

from mmdyn import DynamicConv


class PublishedDynamicConv(nn.Module):
    """timm's ``CondConv2d``, which folds the batch into groups, after the router of the published detectors."""

    def __init__(self, in_channels: int, out_channels: int, *args, **kwargs) -> None:
        super().__init__()
        self.routing = nn.Linear(in_channels, kwargs.get('num_experts', 4))
        self.conv = CondConv2d(in_channels, out_channels, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H', W')."""
        routing = torch.sigmoid(self.routing(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return self.conv(x, routing.to(self.conv.weight.dtype))


def in_published_form(model: nn.Module) -> nn.Module:
    """Replace every DynamicConv of a model by the published form, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, DynamicConv):
                assert child.groups == 1
                assert child.dilation == (1, 1)
                assert child.bias is None
                arguments = child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding
                setattr(module, name, PublishedDynamicConv(*arguments, num_experts=child.num_experts))
    return model


def original_yolo11():
    """The module that builds the original's models, or None if the package is not installed."""
    sys.path.insert(0, str(ROOT / 'tests' / 'parity'))
    try:
        import original
    except ModuleNotFoundError as error:
        if error.name != 'ultralytics':
            raise
        return None
    return original
