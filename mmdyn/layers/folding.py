"""Folding: batch norms in eval mode become part of the convolutions before them.

``y = scale * conv(x, W) + shift`` is linear in W, so a dynamic convolution takes the scale into every expert, exactly;
the shift does not depend on the routing and becomes its ``shared_bias``.

Shapes: M experts, I O in and out channels, g groups, P elements of a kernel.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from mmcv.cnn import Conv2d, ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .dynamic_conv import DynamicConv
from .fdconv import FDConv
from .odconv import Gates, ODConv
from .router import Router

# Exactly these: a subclass may do more, as timm's BatchNormAct2d and weight-standardised convolutions do.
STATIC_CONVS = (nn.Conv2d, Conv2d)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


@torch.no_grad()
def fold_batch_norm(conv: DynamicConv, norm: _BatchNorm) -> DynamicConv:
    """A dynamic convolution with the batch norm that follows it folded into its experts.

    Args:
        conv: The convolution; stays as it is.
        norm: The batch norm, with running statistics.

    Returns:
        A copy with a ``shared_bias`` and the router of ``conv``.

    Raises:
        ValueError: One of the two is in training mode, the batch norm has no running statistics, or another number of
            channels.
    """
    if conv.training or norm.training:
        raise ValueError('batch norms can be folded in eval mode only: call eval() first')
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError('a batch norm without running statistics cannot be folded: it uses those of each batch')
    if norm.num_features != conv.out_channels:
        raise ValueError(f'batch norm of {norm.num_features} channels after a convolution to {conv.out_channels}')
    if isinstance(conv, FDConv):
        conv = conv.with_constant_experts()
    folded = copy.deepcopy(conv, {id(conv.router): conv.router})  # the same router with its hooks: recordings continue
    scale = (norm.running_var + norm.eps).rsqrt()  # (O,)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    folded.weight.copy_((conv.weight.unflatten(1, (conv.out_channels, -1)) * scale[:, None]).flatten(1))  # (M, P)
    if folded.bias is not None:
        folded.bias.mul_(scale)
    if conv.shared_bias is not None:
        shift = shift + conv.shared_bias * scale
    folded.shared_bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    return folded


@torch.no_grad()
def fold_scale(scale: Tensor, conv: DynamicConv) -> DynamicConv:
    """A dynamic convolution with the scale of its input channels folded into its experts and its router.

    ``conv(scale * x)`` becomes ``folded(x)``, exactly: kernels are linear in the input, and so is the pooled input that
    the router sees.

    Args:
        scale: What every input channel is multiplied with, (I,).
        conv: The convolution; stays as it is.

    Returns:
        A copy.

    Raises:
        ValueError: ``scale`` is of another number of channels, or the router is shared with other layers.
    """
    if scale.shape != (conv.in_channels,):
        raise ValueError(f'scale of shape {tuple(scale.shape)} before a convolution of {conv.in_channels} channels')
    if isinstance(conv, FDConv):
        conv = conv.with_constant_experts()
    folded = copy.deepcopy(conv)
    owner = folded.gates if isinstance(folded, ODConv) else folded.router
    if owner is None:
        raise ValueError('a convolution whose router is shared cannot be scaled: the router sees another input')
    fold_router(owner)
    by_group = scale.view(conv.groups, -1).repeat_interleave(conv.out_channels // conv.groups, dim=0)  # (O, I/g)
    folded.weight.copy_((conv.experts * by_group[..., None, None]).flatten(1))
    first = owner.weight if owner.features is None else owner.features.weight
    assert first is not None
    first.mul_(scale)
    return folded


@torch.no_grad()
def fold_router(router: Router | Gates) -> None:
    """Fold the running norm of a router, if it has one, into the linear layer after it, in place.

    Raises:
        ValueError: The router is in training mode.
    """
    if router.features is None or router.features.norm is None:
        return
    if router.training:
        raise ValueError('the norm of a router can be folded in eval mode only: call eval() first')
    scale, shift = router.features.norm.affine()  # (C,) each
    if router.features.weight is None:
        router.bias.add_(router.weight @ shift)
        router.weight.mul_(scale)
        router.features = None
    else:
        weight = router.features.weight
        router.features.bias = nn.Parameter(weight @ shift, requires_grad=weight.requires_grad)
        weight.mul_(scale)
        router.features.norm = None


def _neighbours(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs of names of children that certainly run one right after the other."""
    if isinstance(module, ConvModule) and module.with_norm and ('conv', 'norm') in pairwise(module.order):
        yield 'conv', module.norm_name
    elif type(module).forward is nn.Sequential.forward:
        yield from pairwise(module._modules)


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold batch norms of a model in eval mode into the convolutions before them, in place.

    The running norms of routers are folded, too, and an :class:`FDConv` gets constant experts. A batch norm is folded
    where a ``ConvModule`` or a ``Sequential`` runs it right after a convolution. MMCV's ``fuse_conv_bn`` relies on the
    order of attributes alone, and skips dynamic convolutions. Fold after loading a checkpoint: only a folded model
    loads the state dict of a folded model.

    Args:
        model: Any module.

    Returns:
        The model.

    Raises:
        ValueError: The model is in training mode.
    """
    if model.training:
        raise ValueError('batch norms can be folded in eval mode only: call model.eval() first')
    if isinstance(model, FDConv):
        model = model.with_constant_experts()
    for module in list(model.modules()):
        if isinstance(module, Router | Gates):
            fold_router(module)
        for name, child in list(module.named_children()):
            if isinstance(child, FDConv):
                setattr(module, name, child.with_constant_experts())
        for conv_name, norm_name in list(_neighbours(module)):
            conv, norm = module._modules[conv_name], module._modules[norm_name]
            if not (isinstance(norm, _BatchNorm) and type(norm) in NORMS and norm.running_mean is not None):
                continue
            if isinstance(conv, DynamicConv) and type(conv) in (DynamicConv, ODConv):
                setattr(module, conv_name, fold_batch_norm(conv, norm))
            elif isinstance(conv, nn.Conv2d) and type(conv) in STATIC_CONVS:
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            else:
                continue
            setattr(module, norm_name, nn.Identity())
    return model
