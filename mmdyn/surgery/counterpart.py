"""The static counterpart of a config: the same model with static convolutions instead of the dynamic ones."""

import copy
import re
from collections.abc import Collection
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdyn.errors import UserError
from mmdyn.layers import DynamicConv, FDConv, ODConv

LAYERS = (DynamicConv, FDConv, ODConv)
DYNAMIC_ARGUMENTS = ('num_experts', 'router', 'routing', 'temperature', 'shared_router')
# Part, option, pattern of its layers, and the offset from the number in the name to the position.
OPTION_PATTERNS = (
    ('backbone', 'downsample_cfg', r'backbone\.stage(\d)\.0\b', -1),
    ('backbone', 'block_cfg', r'backbone\.stage(\d)\.1\b', -1),
    ('neck', 'downsample_cfg', r'neck\.downsample_layers\.(\d)\b', 0),
    ('neck', 'block_cfg', r'neck\.top_down_layers\.(\d)\b', 0),
    ('neck', 'block_cfg', r'neck\.bottom_up_layers\.(\d)\b', 2),
)
COUNTS = {('backbone', 'downsample_cfg'): 4, ('backbone', 'block_cfg'): 4}
COUNTS |= {('neck', 'downsample_cfg'): 2, ('neck', 'block_cfg'): 4}
OptionPosition = tuple[str, str, int]


def _is_dynamic(node: Any, scope: str) -> bool:
    names = {name for layer in LAYERS for name in (layer.__name__, f'mmdyn.{layer.__name__}')}
    if scope == 'mmdet':  # there, the name without its scope is another layer
        names -= {'DynamicConv'}
    return isinstance(node, dict) and (node.get('type') in names or node.get('type') in LAYERS)


def _static(node: Any, scope: str) -> Any:
    """A part of a config without dynamic convolutions."""
    if isinstance(node, list | tuple):
        return type(node)(_static(child, scope) for child in node)
    if not isinstance(node, dict):
        return node
    if _is_dynamic(node, scope):
        return ConfigDict(type='Conv2d', bias=node.get('bias', False))
    kept = {k: v for k, v in node.items() if not (k == 'conv_cfg' and _is_dynamic(v, scope))}
    if node.get('type') in ('C3k2_DynamicConv', 'mmdyn.C3k2_DynamicConv'):
        kept = {k: v for k, v in kept.items() if k not in DYNAMIC_ARGUMENTS}
        kept |= dict(type='C3k2', conv2_cfg=dict(type='Conv2d', bias=False))
    return ConfigDict({k: _static(v, scope) for k, v in kept.items()})


def _option_position(layer: str) -> OptionPosition | None:
    """The part, option and position of a layer of YOLO11."""
    for part, option, pattern, first in OPTION_PATTERNS:
        found = re.match(pattern, layer)
        if found:
            return part, option, int(found[1]) + first
    return None


def option_positions(layers: Collection[str]) -> dict[str, OptionPosition]:
    """The positions of layers in the config of a YOLO11; the layers of one block share one.

    Args:
        layers: Names of dynamic convolutions.

    Raises:
        UserError: A layer does not belong to a YOLO11.
    """
    positions = {layer: _option_position(layer) for layer in layers}
    foreign = [layer for layer, position in positions.items() if position is None]
    if foreign:
        raise UserError(
            f'only a YOLO11 of this project can be static in part, and {foreign[0]} is not one of its layers. '
            'Omit the threshold to make every layer static'
        )
    return {layer: position for layer, position in positions.items() if position is not None}


def static_counterpart(cfg: Config, only: Collection[OptionPosition] | None = None) -> Config:
    """A config of a static model with the same layer names, so that static kernels can replace the experts.

    ``DynamicConv`` with batch norm after it becomes the ordinary ``ConvModule``, a bare one becomes a ``Conv2d``.

    Args:
        cfg: Config of a dynamic model; not modified.
        only: Positions of a YOLO11 (see :func:`option_positions`) to make static; None makes everything static.

    Returns:
        A copy.
    """
    static = copy.deepcopy(cfg)
    scope = cfg.get('default_scope', 'mmengine')
    if only is None:
        static.model = _static(cfg.model, scope)
        return static
    for part, option, _ in only:
        described = cfg.model[part][option]
        options = described if isinstance(described, list | tuple) else [described] * COUNTS[part, option]
        static.model[part][option] = [
            _static(option_cfg, scope) if (part, option, i) in only else copy.deepcopy(option_cfg)
            for i, option_cfg in enumerate(options)
        ]
    return static
