"""Checkpoint files: safe loading, comparison with a model, atomic writing.

A checkpoint is a ``.pth`` of MMEngine (``state_dict``, ``meta``) or a plain state dict. Files that end as ``WEIGHTS``
are read by what :mod:`mmdyn.convert.weights` has registered in MMEngine. Nothing in a file is executed.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.model import BaseTTAModel
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmdyn.errors import UserError, listed_classes
from mmdyn.files import new_file, replacing

# Suffixes of exported files, by format
EXPORTED = {
    'onnx': '.onnx',
    'openvino': '.xml',
    'torch_export': '.pt2',
    'ncnn': '.param',
    'coreml': '.mlpackage',
    'litert': '.tflite',
    'engine': '.engine',
}
WEIGHTS = ('.pt', '.safetensors')  # may be of the original
SHOWN_TENSORS = 4  # in a message
SHOWN_LAYERS = 24


def check_checkpoint(path: str) -> dict | None:
    """Check that a file is a checkpoint that loads safely, before a run is built.

    Args:
        path: Local path, or a URL, which MMEngine checks itself.

    Returns:
        The content of the file without the data of its tensors; None for a URL.

    Raises:
        UserError: The file is missing, is not a checkpoint, or contains objects that the safe loader refuses.
    """
    if '://' in path:
        return None
    if not Path(path).is_file():
        raise UserError(f'no checkpoint at {Path(path).absolute()}')
    if Path(path).suffix in EXPORTED.values():
        raise UserError(f'{path} is an exported file, where a checkpoint is needed; detect takes it without a config')
    if Path(path).suffix in WEIGHTS:  # whose reader checks them
        return load_checkpoint(path)
    try:
        content = torch.load(path, map_location='meta', weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as e:
        readable = zipfile.is_zipfile(path) or isinstance(e, pickle.UnpicklingError)
        reason = str(e).splitlines()[0] if readable else 'it was not written by torch.save, or it is truncated'
        raise UserError(f'{path} is not a checkpoint that loads safely: {reason}') from e
    if not isinstance(content, dict):
        raise UserError(f'{path} contains a {type(content).__name__}, not a checkpoint')
    return content


def read_tensors(checkpoint: str | Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """The state dict and the class names of a checkpoint file.

    Raises:
        UserError: The file is missing, has no state dict, or does not load safely.
    """
    if '://' in str(checkpoint):
        raise UserError(f'{checkpoint} is a URL: download the file first')
    content = load_checkpoint(checkpoint)
    return state_dict_of(content, checkpoint), classes_of(content)


def load_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint, on the CPU, as MMEngine's runner gets it; a URL is downloaded.

    Raises:
        UserError: As in :func:`check_checkpoint`.
    """
    if Path(path).suffix not in WEIGHTS:
        check_checkpoint(str(path))
    return CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')


def write_checkpoint(content: dict, target: str | Path) -> None:
    """Write a new file with ``torch.save``, atomically.

    Raises:
        UserError: ``target`` exists.
    """
    with replacing(new_file(target)) as partial:
        torch.save(content, partial)


def state_dict_of(content: dict, source: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the ``module.`` prefix of a parallel model.

    Raises:
        UserError: The checkpoint has no state dict.
    """
    tensors = content.get('state_dict', content)
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise UserError(f'{source} contains no state dict of tensors')
    parallel = all(k.startswith('module.') for k in tensors)
    return with_current_names({k.removeprefix('module.'): v for k, v in tensors.items()} if parallel else tensors)


def with_current_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with current names: earlier versions called the router of a dynamic convolution ``routing``."""
    former = '.routing.weight'
    layers = {k.removesuffix(former) for k in tensors if k.endswith(former)}
    layers = {name for name in layers if getattr(tensors.get(f'{name}.weight'), 'ndim', 0) == 2}  # flat experts
    renamed = {f'{n}.routing.{p}': f'{n}.router.{p}' for n in layers for p in ('weight', 'bias')}
    return {renamed.get(k, k): v for k, v in tensors.items()}


def classes_of(content: dict) -> tuple[str, ...] | None:
    """Names of the classes that a checkpoint was trained on; None if it does not contain them."""
    meta = content.get('meta')
    dataset_meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    names = dataset_meta.get('classes') if isinstance(dataset_meta, dict) else None
    return tuple(map(str, names)) if isinstance(names, list | tuple) else None


def state_dict_differences(expected: dict, found: dict) -> list[str]:
    """How a checkpoint's state dict differs from a model's.

    Args:
        expected: State dict of the model.
        found: State dict of the checkpoint.

    Returns:
        One line for every missing key, unexpected key and different shape, in the order of the model.
    """
    counters = 'num_batches_tracked'
    missing = [f'missing {k} {tuple(v.shape)}' for k, v in expected.items() if k not in found and counters not in k]
    shapes = [
        f'{k} is {tuple(found[k].shape)}, the model has {tuple(v.shape)}'
        for k, v in expected.items()
        if k in found and found[k].shape != v.shape
    ]
    unexpected = [f'unexpected {k} {tuple(v.shape)}' for k, v in found.items() if k not in expected]
    return missing + shapes + unexpected


def refuse_other_architecture(model: nn.Module, checkpoint: dict, name: str, partly: bool = False) -> None:
    """Raise an error if a checkpoint does not fit a model.

    Args:
        model: The model.
        checkpoint: Content of the checkpoint.
        name: Name of the checkpoint in the message.
        partly: A quarter of the tensors is enough, as for fine-tuning.

    Raises:
        UserError: It does not fit; the message lists the first keys that differ.
    """
    expected = (model.module if isinstance(model, BaseTTAModel) else model).state_dict()
    found = _tensors(checkpoint)
    differing = state_dict_differences(expected, found)
    fits = sum(k in expected and expected[k].shape == v.shape and v.dim() > 0 for k, v in found.items())
    enough = fits > len(expected) / 4  # another scale or detector shares a few shapes by chance
    if differing and not (partly and enough):
        classes = [_class_count(state) for state in (found, expected)]
        if classes[0] != classes[1] and all('.cls_preds.' in line for line in differing):
            names = classes_of(checkpoint)
            has = listed_classes(names) if names else f'{classes[0]} classes'
            raise UserError(
                f'{name} has {has}; the config has {classes[1]}: give the config or the data set that it was trained '
                'with'
            )
        raise UserError(
            f'{name} has another architecture than the config: {len(differing)} differences, '
            f'first {"; ".join(differing[:SHOWN_TENSORS])}. Give the config that it was trained with'
        )


def _class_count(state: dict) -> int | None:
    """Classes of a YOLO11; None for other detectors."""
    return next((len(state[k]) for k in class_outputs(state)), None)


def _tensors(checkpoint: dict) -> dict:
    """The state dict of a checkpoint with the names of today."""
    found = checkpoint.get('state_dict', checkpoint)
    return with_current_names({k.removeprefix('module.'): v for k, v in found.items() if hasattr(v, 'shape')})


def class_outputs(names: Iterable[str]) -> set[str]:
    """Of the tensors of a YOLO11, those of the last layer of the class branch, one layer for every level.

    Example:
        >>> sorted(class_outputs(['head.cls_preds.0.3.conv.weight', 'head.cls_preds.0.4.bias', 'neck.weight']))
        ['head.cls_preds.0.4.bias']
    """
    layers: dict[str, dict[int, set[str]]] = {}
    for name in names:
        if found := re.search(r'^(.*\.cls_preds\.\d+)\.(\d+)\.', name):
            layers.setdefault(found[1], {}).setdefault(int(found[2]), set()).add(name)
    return {name for branch in layers.values() for name in branch[max(branch)]}


def start_summary(expected: dict, checkpoint: dict, name: str) -> str:
    """Three lines: where a training starts from, what it takes, and what is new.

    Args:
        expected: State dict of the model.
        checkpoint: The checkpoint, whose tensors of the model's shapes are loaded.
        name: Name of the checkpoint.
    """
    found, classes = _tensors(checkpoint), classes_of(checkpoint)
    missing = [k for k, v in expected.items() if k not in found or found[k].shape != v.shape]
    lines = [f'start from {name}, {listed_classes(classes) if classes else "without class names"}']
    lines.append(f'taken: {len(expected) - len(missing)} of {len(expected)} tensors')
    layers = list(dict.fromkeys(k.rpartition('.')[0] for k in missing))
    if layers and all('.cls_preds.' in layer for layer in layers):
        lines.append(f'new: {len(layers)} layers of the class branch only, because the classes differ')
    else:
        more = f' and {len(layers) - SHOWN_LAYERS} more' if len(layers) > SHOWN_LAYERS else ''
        lines.append(f'new: {", ".join(layers[:SHOWN_LAYERS]) or "nothing"}{more}')
    return '\n  '.join(lines)
