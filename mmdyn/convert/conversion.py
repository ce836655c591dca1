"""Conversion of YOLO11 checkpoints from the Ultralytics package and back. Both directions are strict."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from mmdyn.checkpoints import classes_of, load_checkpoint, state_dict_differences, state_dict_of, write_checkpoint
from mmdyn.errors import UserError
from mmdyn.files import new_file, write_bytes
from mmdyn.version import __version__

from .key_table import PROJECTION, original_names
from .original_file import check_tensors, read_original
from .stored_config import stored_config
from .variant import Variant, find_variant

SHOWN_DIFFERENCES = 20  # differences in a message


class Conversion(NamedTuple):
    """The result of a conversion.

    Example:
        >>> conversion = Conversion(Variant('n', 80, 'yolo11n_coco.py', {}), None, 'ema', 2_624_080)
        >>> conversion.variant.command('tools/test.py', 'yolo11n.pth')
        'python tools/test.py configs/yolo11n_coco.py yolo11n.pth'
    """

    variant: Variant
    classes: tuple[str, ...] | None  # None if the names are unknown
    source: str  # which weights of the file were used
    parameters: int


def convert(
    source: str | Path,
    scale: str | None = None,
    classes: Sequence[str] | None = None,
    keypoints: tuple[int, int] | None = None,
) -> tuple[Conversion, dict[str, Any]]:
    """Convert a checkpoint of the Ultralytics package to one of MMEngine, in memory.

    Args:
        source: A ``.pt``, a plain state dict or a ``.safetensors``; see :func:`read_original`.
        scale: Expected scale; any other scale is an error.
        classes: Class names in order, for a file without them.
        keypoints: How many keypoints a pose model has, and how many numbers of each, for a file that does not state it.

    Returns:
        What was converted, and the checkpoint.

    Raises:
        UserError: ``source`` cannot be read or is not a YOLO11 detector, or a tensor is missing, unexpected or of a
            different shape.
    """
    source = Path(source)
    original = read_original(source)
    variant = find_variant(original.state_dict, original.head, source, original.keypoints or keypoints)
    if scale not in (None, variant.scale):
        raise UserError(f'{source} has scale {variant.scale}, not {scale}. Omit the scale: it is detected')
    classes = _class_names(original.classes, classes, variant.classes, source)
    state_dict = _to_project(original.state_dict, variant, source)
    meta = dict(
        cfg=variant.load_config().pretty_text,
        converted_from=f'{source.name} ({original.source})',
        mmdyn_version=__version__,
        **(dict(dataset_meta=dict(classes=classes)) if classes else {}),
    )
    conversion = Conversion(variant, classes, original.source, _count(state_dict))
    return conversion, dict(meta=meta, state_dict=state_dict)


def convert_from_original(
    source: str | Path,
    target: str | Path,
    scale: str | None = None,
    classes: Sequence[str] | None = None,
    keypoints: tuple[int, int] | None = None,
) -> Conversion:
    """Convert a checkpoint of the Ultralytics package to one of MMEngine.

    Args:
        source: As in :func:`convert`.
        target: Checkpoint to write; must not exist.
        scale: As in :func:`convert`.
        classes: As in :func:`convert`.
        keypoints: As in :func:`convert`.

    Raises:
        UserError: As in :func:`convert`, or ``target`` exists. Nothing is written then.
    """
    target = new_file(target)
    if target.suffix == '.safetensors':
        raise UserError(
            f'invalid target {target}: .safetensors cannot store the meta data of MMEngine, set a .pth file'
        )
    conversion, checkpoint = convert(source, scale, classes, keypoints)
    _write(checkpoint, target)
    return conversion


def convert_to_original(source: str | Path, target: str | Path) -> Conversion:
    """Convert a checkpoint of this project to a state dict that the Ultralytics package loads strictly.

    Args:
        source: Checkpoint of a YOLO11, or a file of the original, whose tensors stay the same. The EMA weights of a
            training checkpoint are used, as in testing.
        target: File to write, as ``.safetensors`` or with ``torch.save``; must not exist.

    Raises:
        UserError: ``source`` is not a checkpoint of a YOLO11, or ``target`` exists. Nothing is written then.
    """
    source, target = Path(source), new_file(target)
    content = load_checkpoint(source)
    tensors = state_dict_of(content, source)
    check_tensors(tensors, source)
    try:
        names = original_names(tensors)
    except KeyError as e:
        raise UserError(f'{source} is not a YOLO11 of this project: it contains {e}') from e
    original = {names[k]: _plain(v) for k, v in tensors.items()}
    keypoints = _stated_keypoints(content, source)
    variant = find_variant(original, None, source, keypoints)
    if (bias := original.get('model.23.cv2.0.2.bias')) is not None:
        original[PROJECTION] = _projection(bias)
    _to_project(original, variant, source)
    classes = _class_names(classes_of(content), None, variant.classes, source)
    _write(original, target, classes, keypoints)
    return Conversion(variant, classes, 'state_dict', _count(tensors))


def _class_names(
    stored: Sequence[str] | None, given: Sequence[str] | None, count: int, source: Path
) -> tuple[str, ...] | None:
    names = given or stored
    if isinstance(names, str):
        raise UserError(f'class names must be a list, got the string {names!r}')
    if names is not None and len(names) != count:
        raise UserError(f'{source} has {count} classes, but there are {len(names)} class names: {", ".join(names[:5])}')
    return tuple(names) if names is not None else None


def _to_project(original: dict[str, Tensor], variant: Variant, source: Path) -> dict[str, Tensor]:
    """The state dict with this project's names, in its order; its keys are exactly those of the variant."""
    expected = variant.expected()
    names = original_names(expected)
    as_original = {names[k]: v for k, v in expected.items()}
    bias = expected.get('bbox_head.head_module.reg_preds.0.2.bias')  # a classifier has none
    if bias is not None:
        as_original[PROJECTION] = _projection(bias)
    differing = state_dict_differences(as_original, original)
    if differing:
        more = [f'and {len(differing) - SHOWN_DIFFERENCES} more'] if len(differing) > SHOWN_DIFFERENCES else []
        raise UserError(
            f'{source} differs from the model of {variant.config} in {len(differing)} tensors:\n  '
            + '\n  '.join(differing[:SHOWN_DIFFERENCES] + more)
        )
    if bias is not None and not torch.equal(original[PROJECTION].float(), as_original[PROJECTION]):
        last = as_original[PROJECTION].numel() - 1
        raise UserError(f'{source} has a {PROJECTION} other than 0 … {last}, which this project does not support')
    counter = torch.tensor(0)  # num_batches_tracked; some tools omit it from a state dict
    return {ours: _plain(original.get(theirs, counter)) for ours, theirs in names.items()}


def _projection(box_bias: Tensor) -> Tensor:
    """The original's fixed weights that project the bins of a distance to the distance, (1, bins, 1, 1)."""
    return torch.arange(box_bias.numel() // 4, dtype=torch.float)[None, :, None, None]


def _plain(tensor: Tensor) -> Tensor:
    """A copy of the tensor, floats in float32: published weights are in float16."""
    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    return tensor.float() if tensor.is_floating_point() else tensor


def _count(state_dict: dict[str, Tensor]) -> int:
    """Number of parameters, without batch norm statistics and counters."""
    return sum(v.numel() for k, v in state_dict.items() if not k.endswith(('_mean', '_var', '_tracked')))


def _stated_keypoints(content: dict, source: Path) -> tuple[int, int] | None:
    """The shape of keypoints in the config of a checkpoint."""
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    stored = stored_config(text, source) if isinstance(text, str) else None
    shape = stored.model.get('bbox_head', {}).get('head_module', {}).get('keypoint_shape') if stored else None
    return (shape[0], shape[1]) if shape else None


def _write(
    content: dict, target: Path, classes: tuple[str, ...] | None = None, keypoints: tuple[int, int] | None = None
) -> None:
    """Write a file atomically."""
    if target.suffix != '.safetensors':
        return write_checkpoint(content, target)
    notes = {key: json.dumps(value) for key, value in (('classes', classes), ('kpt_shape', keypoints)) if value}
    data = safetensors.torch.save(content, metadata=notes or None)
    return write_bytes(new_file(target), data)
