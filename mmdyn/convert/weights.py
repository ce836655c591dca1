"""Weights of any origin as a checkpoint of this project: a file of the original, ``.safetensors``, or one of ours.

MMEngine's loader takes them from here, so that ``load_from`` and every tool accept these files.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner.checkpoint import CheckpointLoader

from mmdyn.checkpoints import WEIGHTS, check_checkpoint, state_dict_differences, state_dict_of
from mmdyn.errors import UserError
from mmdyn.running.image_size import set_image_size

from .conversion import convert
from .key_table import original_names
from .original_file import read_safetensors
from .stored_config import stored_config
from .variant import Variant, find_variant

OWN = 'backbone.stem.conv.weight'  # of a YOLO11 of this project


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read weights as a checkpoint of MMEngine.

    Args:
        path: A ``.pt`` of the Ultralytics package or a plain state dict of it, which are converted; ``.safetensors``
            with the names of either; or a checkpoint of this project.

    Returns:
        ``state_dict`` and ``meta``, with ``cfg`` and ``dataset_meta`` where they are known.

    Raises:
        UserError: The file is missing, damaged or unsafe, or is not of a YOLO11 of a known task and scale.

    Example:
        >>> sorted(read_weights(digits_checkpoint))
        ['meta', 'state_dict']
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no weights at {path.absolute()}')
    if path.suffix == '.safetensors':
        tensors, classes = read_safetensors(path)
        if OWN in tensors:
            return dict(state_dict=tensors, meta=dict(dataset_meta=dict(classes=classes)) if classes else {})
        return convert(path)[1]
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception:  # objects of another package, or damage: the reader of such files says which
        return convert(path)[1]
    tensors = state_dict_of(content, path) if isinstance(content, dict) else {}
    if OWN not in tensors and path.suffix in WEIGHTS:
        return convert(path)[1]
    return dict(content, state_dict=tensors, meta=content.get('meta') or {})


def weights_config(path: str | Path) -> Config:
    """The config of the model in a weights file: for testing, exporting and detecting without naming one.

    Args:
        path: As in :func:`read_weights`.

    Returns:
        A config of COCO with this model and its image size. It can be trained, too.

    Raises:
        UserError: As in :func:`read_weights`; or the file is of a detector of another package.

    Example:
        >>> config = weights_config(digits_checkpoint)
        >>> config.model.bbox_head.head_module.num_classes, config.img_scale
        (10, (320, 320))
    """
    content = check_checkpoint(str(path)) or {}
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    stored = stored_config(text, path) if isinstance(text, str) else None
    tensors = state_dict_of(content, path)
    try:
        names = original_names(tensors)
    except KeyError as e:
        raise UserError(f'{path} is not of a YOLO11 of mmdyn: it contains {e}. Give its config, too') from e
    variant = find_variant({names[k]: v for k, v in tensors.items()}, None, Path(path))
    if stored is None:
        cfg = _fitting_config(variant, tensors, path)
    else:
        cfg = variant.load_config()
        cfg.model = ConfigDict(copy.deepcopy(stored.model))
        set_image_size(cfg, *stored.size)
    cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    return cfg


def _fitting_config(variant: Variant, tensors: dict, path: str | Path) -> Config:
    """The config of a variant, or its form with batch norm, whichever has these tensors."""
    with_batch_norm = variant._replace(config=variant.config.replace('dynconv_', 'dynconv-bn_'))
    for each in (variant, with_batch_norm):
        if not state_dict_differences(each.expected(), tensors):
            return each.load_config()
    raise UserError(f'{path} does not state its config, and fits neither {variant.config} nor its -bn form: give it')


@CheckpointLoader.register_scheme(prefixes=r'(?!\w+://).*\.(pt|safetensors)$', force=True)
def load_from_weights(filename: str, map_location: Any = None) -> dict[str, Any]:
    """What MMEngine calls for these suffixes; weights stay on the CPU until they are copied into a model."""
    return read_weights(filename)
