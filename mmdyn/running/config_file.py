"""Loading of a config file with the options of the command line, with error messages for invalid ones."""

import difflib
import inspect
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmdyn.classify.task import need_mmpretrain
from mmdyn.errors import UserError
from mmdyn.tasks import FOLDERS, TASKS

from .image_channels import settle_channels
from .image_size import settle_image_size

CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'  # configs of the package
CHECKPOINTS = ('.pth', '.pt', '.onnx', '.safetensors')
# Optional keys of a config that are not arguments of the runner.
OPTIONAL_KEYS = (
    *(
        'auto_scale_lr',
        'custom_imports',
        'frozen_layers',
        'keep_freed_memory',
        'runner_type',
        'tta_model',
        'tta_pipeline',
    ),
    *('compile', 'model_wrapper_cfg', 'sync_bn'),  # read by MMEngine's runner from the config
)


def load_config(
    name: str | Config, cfg_options: dict | None = None, work_dir: str | None = None, launcher: str = 'none'
) -> Config:
    """Read a config and merge the options of the command line into it.

    Args:
        name: A config file, the name of a config of the package: ``'yolo11n_dynconv_coco'``; or a config.
        cfg_options: Dotted keys and values to override.
        work_dir: Folder of the run; None takes the config's, or ``work_dirs/<name of the config>``.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        UserError: The file does not exist or does not parse, or an option does not fit the config.

    Example:
        >>> config = load_config('yolo11n_dynconv_coco', {'train_cfg.max_epochs': 100})
        >>> config.train_cfg.max_epochs
        100
    """
    if not isinstance(name, Config) and Path(name).suffix in CHECKPOINTS:
        raise UserError(f'{name} is not a config: --help shows the order of the arguments')
    path = name.filename if isinstance(name, Config) else _config_file(name)
    try:
        cfg = name if isinstance(name, Config) else Config.fromfile(path)
        _check_keys(cfg, cfg_options or {})
        cfg.merge_from_dict(cfg_options or {})
        if str(cfg.get('model', {}).get('type')).startswith('mmpretrain.'):
            need_mmpretrain()
        settle_image_size(cfg)
        settle_channels(cfg)
    except UserError:
        raise
    except Exception as e:  # a config is code and may raise any error, which the user can correct
        raise UserError(f'config {path} does not load: {type(e).__name__}: {e}') from e
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / config_name(path))
    return cfg


def _config_file(name: str) -> str:
    """The file of a config, which may be the name of a config of the package."""
    if Path(name).is_file():
        return name
    packaged = {config_name(p): p for p in CONFIGS.rglob('*.py') if p.parent.name != '_base_'}
    if name in packaged:
        return str(packaged[name])
    near = _of_the_original(config_name(name), packaged) or difflib.get_close_matches(config_name(name), packaged, n=3)
    hint = f' Did you mean {" or ".join(near)}?' if near else ''
    raise UserError(f'no config file at {Path(name).absolute()}, and no config of the package has this name.{hint}')


def _of_the_original(name: str, packaged: Collection[str]) -> list[str]:
    """The config that has the name of a model of the original: ``yolo11n-seg`` is ``segment/yolo11n_coco``."""
    scale, dash, suffix = name.partition('-')
    same = [f'{task.name}/{scale}_{task.data}' for task in TASKS.values() if task.suffix == dash + suffix]
    return [config for config in (each.removeprefix('detect/') for each in same) if config in packaged]


def config_name(path: str | Path) -> str:
    """The name of a config: of its file, after that of the task whose folder it is in: ``segment/yolo11n_coco``."""
    path = Path(path)
    return f'{path.parent.name}/{path.stem}' if path.parent.name in FOLDERS else path.stem


def _check_keys(cfg: Config, options: dict) -> None:
    """Check the first part of every key, which nothing else checks; constructors check the rest."""
    # arguments of the runner, and keys that are referred to by a string in the config
    read = {*inspect.signature(Runner).parameters, *OPTIONAL_KEYS, *_strings(cfg.to_dict())}
    known = {*cfg, *read}
    for option in options:
        first = option.split('.')[0]
        if first in cfg and first not in read and first != 'img_scale':
            raise UserError(
                f"invalid --cfg-options key '{option}': '{first}' is only read while the config file is parsed. "
                'Set the keys that use its value, or change it in your own config file'
            )
        if first not in known:
            near = difflib.get_close_matches(first, known, n=3)
            hint = f'Did you mean {" or ".join(near)}?' if near else 'The keys of a config are in its file.'
            raise UserError(f"--cfg-options {option}: nothing reads '{first}'. {hint}")


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _strings(child)
