"""Folding: batch norms in eval mode become part of the convolutions before them.

``y = scale * conv(x, W) + shift`` is linear in W, so a dynamic convolution takes the scale into every expert, exactly;
the shift does not depend on the routing and becomes its ``shared_bias``.

Shapes: M experts, O out channels, P elements of a kernel.
"""

from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .dynamic_conv import DynamicConv


@torch.no_grad()
def fold_batch_norm(conv: DynamicConv, norm: _BatchNorm) -> None:
    """Fold the batch norm that follows a dynamic convolution into its experts, in place.

    Args:
        conv: The convolution.
        norm: The batch norm, with running statistics.

    Raises:
        ValueError: The batch norm has no running statistics, or another number of channels.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError('a batch norm without running statistics cannot be folded: it norms by the batch at hand')
    if norm.num_features != conv.out_channels:
        raise ValueError(f'batch norm of {norm.num_features} channels after a convolution to {conv.out_channels}')
    scale = (norm.running_var + norm.eps).rsqrt()  # (O,)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    conv.weight.copy_((conv.weight.unflatten(1, (conv.out_channels, -1)) * scale[:, None]).flatten(1))  # (M, P)
    if conv.bias is not None:
        conv.bias.mul_(scale)
    if conv.shared_bias is not None:
        shift = shift + conv.shared_bias * scale
    conv.shared_bias = nn.Parameter(shift.to(conv.weight.dtype))


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold batch norms of a model in eval mode into the convolutions before them, in place.

    Where a ``ConvModule`` or a ``Sequential`` says that the one follows the other. MMCV's ``fuse_conv_bn`` goes by the
    order of attributes alone, which also folds what a layer in between should have seen.

    Args:
        model: Any module.

    Returns:
        The model.

    Raises:
        ValueError: The model is in training mode.
    """
    if model.training:
        raise ValueError('batch norms can be folded in eval mode only: call model.eval() first')
    for module in model.modules():
        if not isinstance(module, ConvModule | nn.Sequential):
            continue
        if isinstance(module, ConvModule) and ('conv', 'norm') not in pairwise(module.order):
            continue
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) or norm.running_mean is None:
                continue
            if isinstance(conv, DynamicConv):
                fold_batch_norm(conv, norm)
            elif isinstance(conv, nn.Conv2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            else:
                continue
            setattr(module, norm_name, nn.Identity())
    return model
