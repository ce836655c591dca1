"""Conv units: the convolution with whatever norm and activation go with it, built from one config dict.

``dict(type='ConvModule')`` is Conv + BN + SiLU, ``dict(type='DynamicConv')`` a bare dynamic convolution, and
``dict(type='ConvModule', conv_cfg=dict(type='DynamicConv'))`` a dynamic convolution with BN + SiLU after it.
"""

import inspect
from typing import Any

from mmcv.cnn import ConvModule
from torch import nn

from mmdyn.registry import MODELS

Config = dict[str, Any]

# YOLO's batch norm and activation (https://docs.ultralytics.com/models/yolo11).
YOLO_NORM: Config = dict(type='BN', momentum=0.03, eps=0.001)
YOLO_ACT: Config = dict(type='SiLU', inplace=True)

# What every part of YOLO11 is made of unless a config says otherwise.
STATIC_CONV: Config = dict(type='ConvModule')
STATIC_BLOCK: Config = dict(type='C3k2')


def find_layer(kind: str | type[nn.Module]) -> type[nn.Module]:
    """The class of a config's ``type``: from this package's registry and MMEngine's root, then from the current scope.

    In this order, so that ``DynamicConv`` is this package's in every scope; that of mmdet is Sparse R-CNN's.

    Args:
        kind: Registered name, or the class itself.

    Raises:
        KeyError: No registry has the name.
    """
    if not isinstance(kind, str):
        return kind
    with MODELS.switch_scope_and_registry(None) as registry:
        layer = MODELS.get(kind) or registry.get(kind)
    if layer is None:
        raise KeyError(f'{kind} is not in the {registry.scope}::{registry.name} registry.')
    return layer


def option_for(option: Config | list[Config], index: int, count: int, name: str) -> Config:
    """What an option says of one of several places: it is one config for all of them, or a list with one for each.

    Args:
        option: The option.
        index: Which place.
        count: How many there are.
        name: What to call the option in the message.

    Raises:
        ValueError: The list has another length.
    """
    if not isinstance(option, list | tuple):
        return option
    if len(option) != count:
        raise ValueError(f'{name} has {len(option)} entries, one for each of {count} is needed')
    return option[index]


def build_block(cfg: Config, **defaults) -> nn.Module:
    """Build the block that ``cfg`` names.

    Args:
        cfg: ``type`` as in :func:`find_layer`, and its own arguments.
        **defaults: Arguments unless ``cfg`` has its own.
    """
    return find_layer(cfg['type'])(**defaults | {k: v for k, v in cfg.items() if k != 'type'})


def build_conv_unit(
    cfg: Config,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    norm_cfg: Config | None = YOLO_NORM,
    act_cfg: Config | None = YOLO_ACT,
) -> nn.Module:
    """Build the unit that ``cfg`` names, padded to keep the size at stride 1.

    Args:
        cfg: ``type`` as in :func:`find_layer`, and its own arguments.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel size, odd.
        stride: Stride.
        norm_cfg: Given to units that take one, unless ``cfg`` has its own.
        act_cfg: Likewise.
    """
    unit = find_layer(cfg['type'])
    accepted = inspect.signature(unit).parameters
    surroundings = {k: v for k, v in dict(norm_cfg=norm_cfg, act_cfg=act_cfg).items() if k in accepted}
    own = {k: v for k, v in cfg.items() if k != 'type'}
    return unit(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, **surroundings | own)


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    groups: int = 1,
    norm_cfg: Config | None = YOLO_NORM,
    act_cfg: Config | None = YOLO_ACT,
) -> ConvModule:
    """Static Conv + BN + activation at stride 1, padded to keep the size."""
    return ConvModule(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        groups=groups,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
    )
