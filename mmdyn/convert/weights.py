"""Weights of any origin as a checkpoint of this project: a file of the original, ``.safetensors``, or one of ours.

MMEngine's loader takes them from here, so that ``load_from`` and every tool accept these files.
"""

import copy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, is_main_process
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader

from mmdyn.checkpoints import check_checkpoint, load_checkpoint, state_dict_differences, state_dict_of
from mmdyn.errors import UserError
from mmdyn.files import replacing
from mmdyn.models.build import build_model
from mmdyn.running.config_file import load_config
from mmdyn.running.image_channels import image_channels, set_channels
from mmdyn.running.image_size import set_crop_size, set_image_size
from mmdyn.running.messages import config_errors

from .conversion import convert
from .key_table import original_names
from .original_file import FIRST_LAYER, read_safetensors
from .stored_config import StoredConfig, stored_config
from .variant import Variant, find_variant

OWN = 'backbone.stem.conv.weight'  # of a YOLO11 of this project


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read weights as a checkpoint of MMEngine.

    Args:
        path: A ``.pt`` of the Ultralytics package or a plain state dict of it, which are converted; ``.safetensors``
            with the names of either; or a checkpoint of this project or of another detector, which stays as it is.

    Returns:
        ``state_dict`` and ``meta``, with ``cfg`` and ``dataset_meta`` where they are known.

    Raises:
        UserError: The file is missing, damaged or unsafe, or is not of a YOLO11 of a known task and scale.

    Example:
        >>> len(read_weights(digits_checkpoint)['state_dict']['backbone.stem.conv.weight'])
        16
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no weights at {path.absolute()}')
    if path.suffix == '.safetensors':
        tensors, classes, _ = read_safetensors(path)
        content: Any = dict(state_dict=tensors, meta=dict(dataset_meta=dict(classes=classes)) if classes else {})
    else:
        try:
            content = torch.load(path, map_location='cpu', weights_only=True)
        except Exception:  # objects of another package, or damage: the reader of such files says which
            return convert(path)[1]
    if not isinstance(content, dict):
        raise UserError(f'{path} contains a {type(content).__name__}, not weights')
    tensors = content.get('state_dict', content)
    if OWN not in tensors and any(isinstance(name, str) and FIRST_LAYER.search(name) for name in tensors):
        return convert(path)[1]
    return content  # ours, or of another detector


def weights_config(path: str | Path) -> Config:
    """The config of the model in a weights file: for testing, exporting and detecting without naming one.

    Args:
        path: As in :func:`read_weights`.

    Returns:
        A config of COCO, or of ImageNet for a classifier, with this model and its image size; of a detector 640 x 640
        if the file does not state it.

    Raises:
        UserError: As in :func:`read_weights`; or the file is of a detector of another package.

    Example:
        >>> config = weights_config(digits_checkpoint)
        >>> config.model.bbox_head.head_module.num_classes
        10
    """
    if '://' in str(path):
        raise UserError(f'{path} is a URL: download the file first, or give its config, too')
    content = check_checkpoint(str(path)) or {}
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    stored = stored_config(text, path) if isinstance(text, str) else None
    tensors = state_dict_of(content, path)
    cfg = _recognised(tensors, path) if stored is None else _restored(stored, tensors, path)
    cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    return cfg


def _restored(stored: StoredConfig, tensors: dict, path: str | Path) -> Config:
    """A config with the model, the image size and the channels that a checkpoint states."""
    cfg = load_config('yolo11n_coco' if stored.resize is None else 'classify/yolo11n_imagenet')
    cfg.model = ConfigDict(copy.deepcopy(stored.model))
    set_channels(cfg, image_channels(cfg), to_float32=stored.sixteen_bits or None)
    if stored.resize is None:
        set_image_size(cfg, *stored.size)
    else:
        set_crop_size(cfg, stored.size[0], stored.resize)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmyolo'), config_errors():
        expected = build_model(cfg).state_dict()
    if differing := state_dict_differences(expected, tensors):
        raise UserError(f'{path} does not fit the config that it states: {differing[0]}. Give its config')
    return cfg


def _recognised(tensors: dict, path: str | Path) -> Config:
    """The config of weights that state none."""
    try:
        names = original_names(tensors)
    except KeyError as e:
        raise UserError(f'{path} is not of a YOLO11 of mmdyn: it contains {e}. Give its config, too') from e
    return _fitting_config(find_variant({names[k]: v for k, v in tensors.items()}, None, Path(path)), tensors, path)


def _fitting_config(variant: Variant, tensors: dict, path: str | Path) -> Config:
    """The config of a variant, or its form with batch norm, whichever has these tensors."""
    with_batch_norm = variant._replace(config=variant.config.replace('dynconv_', 'dynconv-bn_'))
    for each in (variant, with_batch_norm):
        if not state_dict_differences(each.expected(), tensors):
            return each.load_config()
    raise UserError(f'{path} does not state its config, and fits neither {variant.config} nor its -bn form: give it')


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_url(filename: str, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """Download weights once, and read the file as safely as any other; MMEngine would execute what is in it."""
    target = Path(torch.hub.get_dir(), 'checkpoints', Path(urlsplit(filename).path).name)
    if is_main_process() and not target.is_file():
        try:
            with replacing(target) as partial:
                torch.hub.download_url_to_file(filename, str(partial))
        except OSError as e:
            raise UserError(f'{filename} cannot be downloaded: {e}') from e
    barrier()
    return load_checkpoint(target)


@CheckpointLoader.register_scheme(prefixes=r'(?!\w+://).*\.(pt|safetensors)$', force=True)
def load_from_weights(filename: str, map_location: Any = None) -> dict[str, Any]:
    """What MMEngine calls for these suffixes; weights stay on the CPU until they are copied into a model."""
    return read_weights(filename)
