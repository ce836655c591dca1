"""What must be equal in the arms of a comparison: data, budget, evaluation, starting weights, precision."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmdyn.errors import UserError

# Fields that must be equal for a fair comparison: data, budget, evaluation, starting weights, precision.
EQUAL = (
    'train_dataloader',
    'model.data_preprocessor',
    'last_epochs_pipeline',
    'val_dataloader',
    'val_evaluator',
    'val_cfg',
    'train_cfg',
    'load_from',
    'resume',
    'randomness',
    'amp',
    'optim_wrapper.type',
    'optim_wrapper.dtype',
    'optim_wrapper.accumulative_counts',
    'optim_wrapper.optimizer.type',
    'default_hooks.param_scheduler.nominal_batch_size',
    'model.bbox_head.head_module.num_classes',
    'model.test_cfg',
)
PRETRAINED = re.compile(r'\.init_cfg(\.\d+)?\.checkpoint$')  # pretrained weights in any part of the model
# Custom hooks that change the data or average the weights. Other hooks may differ between arms.
EQUAL_HOOKS = re.compile(r'EMA|Mosaic|Pipeline')
DEFAULTS = {name: p.default for name, p in inspect.signature(Runner).parameters.items()}
# The keys of a config that are used; its other names are variables of the file.
READ = {*DEFAULTS, 'last_epochs_pipeline', 'tta_model', 'tta_pipeline', 'keep_freed_memory'}
READ |= {'amp', 'compile', 'sync_bn', 'model_wrapper_cfg'}
# These change no result, so they may differ between arms and between two calls. The number of workers changes results:
# each worker draws its own random numbers, and keeps its own images for mosaics.
INCIDENTAL = (
    'cache',
    'pin_memory',
    'prefetch_factor',
    'logger',
    'log_processor',
    'log_level',
    'visualizer',
    'env_cfg',
    '_scope_',
)
ABSENT = 'not set'
SHOWN_FIELDS = 5  # in a message


def flat(node: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config, without fields that change no result."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else None
    if items is None or not node:
        node = 'YOLO11Detector' if node == 'YOLODetector' else node  # the same without options of its own
        yield prefix, list(node) if isinstance(node, tuple) else node
        return
    for key, value in items:
        if key not in INCIDENTAL:
            yield from flat(value, f'{prefix}.{key}' if prefix else str(key))


def config_differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two configs, with both values.

    Args:
        one: A config.
        other: Another one.
    """
    left, right = (dict(flat({k: v for k, v in cfg.to_dict().items() if k in READ})) for cfg in (one, other))
    keys = [*left, *(key for key in right if key not in left)]
    both = {key: tuple(side.get(key, DEFAULTS.get(key, ABSENT)) for side in (left, right)) for key in keys}
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _rank(key: str) -> tuple[int, int] | None:
    """Rank of a field among those that must be equal, the most informative first; None if it may differ."""
    fields = (i for i, field in enumerate(EQUAL) if key == field or key.startswith(f'{field}.'))
    first = next(fields, len(EQUAL) if PRETRAINED.search(key) else None)
    return None if first is None else (first, key.count('.'))


def _equal_hooks(cfg: Config) -> list[dict]:
    return [dict(hook) for hook in cfg.get('custom_hooks') or () if EQUAL_HOOKS.search(str(hook.get('type')))]


def check_comparable(arms: Mapping[str, Config]) -> None:
    """Check that the configs have the same data, budget and evaluation.

    Args:
        arms: Configs by name; each is compared with the first one.

    Raises:
        UserError: They differ in data, budget, evaluation or starting weights; names the fields and both values.
    """
    control, *others = arms
    for arm in others:
        different = config_differences(arms[control], arms[arm])
        ranked = sorted((rank, key) for key, rank in zip(different, map(_rank, different)) if rank is not None)
        unequal = [key for _, key in ranked]
        hooks = _equal_hooks(arms[control]), _equal_hooks(arms[arm])
        if hooks[0] != hooks[1]:
            different['custom_hooks'] = hooks
            unequal.append('custom_hooks')
        if unequal:
            lines = [
                f'  {k}: {different[k][0]!r} in {control}, {different[k][1]!r} in {arm}' for k in unequal[:SHOWN_FIELDS]
            ]
            more = f'\n  and {len(unequal) - SHOWN_FIELDS} more' if len(unequal) > SHOWN_FIELDS else ''
            raise UserError(
                f'{control} and {arm} cannot be compared, because data or budget differ:\n'
                + '\n'.join(lines)
                + more
                + '\n'
                'Make them equal in the configs, or set --cfg-options KEY=VALUE, which applies to all configs'
            )
