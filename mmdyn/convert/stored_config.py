"""The model of a config that is stored in a checkpoint as text, read without executing it.

A checkpoint comes from anywhere. Its config is Python, and the types in a config are names that MMEngine would look up
in any installed module. So the text is only parsed, and a model is taken only if all of its types are those of the
configs of this package.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from mmengine.config import Config

from mmdyn.errors import UserError
from mmdyn.running.config_file import CONFIGS
from mmdyn.running.image_channels import keeps_sixteen_bits
from mmdyn.running.image_size import crop_sizes, test_size
from mmdyn.tasks import TASKS

OWN_LAYERS = ('DynamicConv', 'C3k2_DynamicConv', 'ODConv', 'FDConv')
OWN_TYPES = (
    *OWN_LAYERS,
    *(f'mmdyn.{name}' for name in OWN_LAYERS),
    *('Conv2d', 'linear', 'mlp', 'uniform'),  # the last three of routers
    *('YOLODetector', 'YOLOv5DetDataPreprocessor'),  # in checkpoints of earlier versions
)


class StoredConfig(NamedTuple):
    """What is taken from the config of a checkpoint."""

    model: dict[str, Any]
    size: tuple[int, int]  # height and width of a test image
    sixteen_bits: bool  # whether 16 bits of an image are kept
    resize: int | None = None  # of a classifier, pixels of the shorter side before the centre is taken


def stored_config(text: str, source: object) -> StoredConfig | None:
    """The model and the image size in the text of a config.

    Args:
        text: What MMEngine writes into the ``meta`` of a checkpoint.
        source: Name of the file in messages.

    Returns:
        None if the text has no model.

    Raises:
        UserError: The text is not that of a config, or its model has a type that no config of this package has.

    Example:
        >>> from mmdyn.running import load_config
        >>> stored = stored_config(load_config('yolo11n_digits').pretty_text, 'mine.pth')
        >>> stored.model['bbox_head']['head_module']['num_classes'], stored.size
        (10, (320, 320))
    """
    try:
        values = dict(_assignments(text, ('model', 'test_dataloader')))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as e:
        raise UserError(f'the config in {source} cannot be read ({e}): give the config that it was trained with') from e
    if not isinstance(values.get('model'), dict):
        return None
    if isinstance(values['model'].get('data_preprocessor'), dict):
        values['model']['data_preprocessor'].pop('batch_augments', None)  # for training only
    foreign = sorted({*_types(values['model'])} - known_types())
    if foreign:
        raise UserError(
            f'the config in {source} has {", ".join(foreign[:4])}, which no config of mmdyn has: give the config that '
            'it was trained with'
        )
    classifies = 'bbox_head' not in values['model'] and 'head' in values['model']
    try:
        cfg = Config(dict(model=values['model'], test_dataloader=values['test_dataloader']))
        resize = crop_sizes(cfg)[0] if classifies else None
        return StoredConfig(values['model'], test_size(cfg), keeps_sixteen_bits(cfg), resize)
    except (KeyError, AttributeError, TypeError, ValueError, UserError) as e:
        if classifies:
            raise UserError(f'the config in {source} tests other images: give the config, too. {e}') from e
        return StoredConfig(values['model'], (640, 640), False)


def _assignments(text: str, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names:
            yield node.targets[0].id, _value(node.value)


def _value(node: ast.expr) -> Any:
    """The value of a literal, or of a call of ``dict`` with keywords only."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or node.args:
            raise ValueError(f'line {node.lineno} calls something other than dict')
        return {_keyword(pair): _value(pair.value) for pair in node.keywords}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(_present(k)): _value(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(child) for child in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


def _keyword(pair: ast.keyword) -> str:
    if pair.arg is None:
        raise ValueError(f'line {pair.value.lineno} unpacks a dict')
    return pair.arg


def _present(key: ast.expr | None) -> ast.expr:
    if key is None:
        raise ValueError('a dict is unpacked')
    return key


@lru_cache(maxsize=1)
def known_types() -> frozenset[str]:
    """All types in the models of published data, and those of the layers; no other config has more, says a test."""
    files = [path for task in TASKS.values() for path in CONFIGS.rglob(f'yolo11n*_{task.data}.py')]
    models = [Config.fromfile(path).get('model') for path in dict.fromkeys(files)]
    return frozenset(OWN_TYPES).union(*map(_types, models))


def _types(node: Any) -> Iterator[str]:
    """The value of every key ``type``, as text."""
    if isinstance(node, dict):
        if 'type' in node:
            yield str(node['type'])
        for child in node.values():
            yield from _types(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _types(child)
