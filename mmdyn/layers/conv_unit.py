"""Conv units: a convolution with its norm and activation, built from one config dict.

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

# Defaults of every part of YOLO11.
STATIC_CONV: Config = dict(type='ConvModule')
STATIC_BLOCK: Config = dict(type='C3k2')


def find_layer(kind: str | type[nn.Module]) -> type[nn.Module]:
    """The class of a config's ``type``: from this package's registry and MMEngine's root, then from the current scope.

    This order makes ``DynamicConv`` this package's layer in every scope; mmdet has another one, of Sparse R-CNN.

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
    """The config of one position: an option is one config for all positions, or a list with one config for each.

    Args:
        option: Value of the option.
        index: Index of the position.
        count: Number of positions.
        name: Name of the option, for the error message.

    Raises:
        ValueError: The list does not have ``count`` entries.
    """
    if not isinstance(option, list | tuple):
        return option
    if len(option) != count:
        raise ValueError(f'invalid {name} of {len(option)} entries: set one config, or a list of {count}')
    return option[index]


def build_block(cfg: Config, **defaults) -> nn.Module:
    """Build the block that ``cfg`` names.

    Args:
        cfg: ``type`` as in :func:`find_layer`, and its own arguments.
        **defaults: Arguments that ``cfg`` does not set.
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
        norm_cfg: Norm layer of units that take one, unless ``cfg`` sets it.
        act_cfg: Activation of units that take one, unless ``cfg`` sets it.
    """
    unit = find_layer(cfg['type'])
    accepted = inspect.signature(unit).parameters
    norm_act = {k: v for k, v in dict(norm_cfg=norm_cfg, act_cfg=act_cfg).items() if k in accepted}
    own = {k: v for k, v in cfg.items() if k != 'type'}
    return unit(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, **norm_act | own)


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
