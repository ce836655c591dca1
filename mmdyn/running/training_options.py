"""Controls of a training that change more than one key of a config, each by a function; the tools call them."""

import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmdyn.errors import UserError, class_number
from mmdyn.models.numbering import check_frozen

from .config_file import CONFIGS
from .dataset_images import build_quietly, is_array_dataset
from .image_size import LOADERS, image_size, innermost_dataset
from .testing import task_of_config

RECIPE = '_base_/finetune.py'
MULTI_SCALE = 0.5  # share of the image size that it varies by


class Logger(NamedTuple):
    """A visualizer backend of MMEngine, and the package that it needs."""

    backend: str
    package: str


LOGGERS = {
    'tensorboard': Logger('TensorboardVisBackend', 'tensorboard'),
    'wandb': Logger('WandbVisBackend', 'wandb'),
    'mlflow': Logger('MLflowVisBackend', 'mlflow'),
    'clearml': Logger('ClearMLVisBackend', 'clearml'),
    'neptune': Logger('NeptuneVisBackend', 'neptune'),
    'dvclive': Logger('DVCLiveVisBackend', 'dvclive'),
    'aim': Logger('AimVisBackend', 'aim'),
}


def set_training_options(
    cfg: Config,
    classes: Sequence[str] | None = None,
    single_class: bool = False,
    freeze: int | str | None = None,
    patience: int | None = None,
    multi_scale: bool = False,
) -> None:
    """Change a config; the defaults leave it as it is.

    Args:
        cfg: Config, changed in place.
        classes: As in :func:`choose_classes`.
        single_class: Take all objects as of one class.
        freeze: Number of layers, or ``'backbone'``, as in :class:`mmdyn.engine.hooks.FreezeHook`.
        patience: As in :func:`set_patience`.
        multi_scale: As in :func:`set_multi_scale`.

    Raises:
        UserError: A value is invalid.
    """
    if classes:
        choose_classes(cfg, classes)
    if single_class:
        merge_classes(cfg)
    if freeze is not None:
        check_frozen(freeze)
        cfg.frozen_layers = freeze
    if patience is not None:
        set_patience(cfg, patience)
    if multi_scale:
        set_multi_scale(cfg)


def start_from_weights(cfg: Config, weights: str) -> None:
    """Train from weights of any origin, by the recipe of fine-tuning.

    Args:
        cfg: Config, changed in place.
        weights: The original's ``.pt``, ``.safetensors``, or a checkpoint.
    """
    cfg.load_from, cfg.resume = str(weights), False
    if (cfg.get('default_hooks') or {}).get('param_scheduler', {}).get('type') != 'YOLOScheduleHook':
        return  # the recipe is YOLO's; another detector keeps its own
    recipe = Config.fromfile(CONFIGS / RECIPE)
    recipe.train_cfg.max_epochs = min(recipe.train_cfg.max_epochs, cfg.train_cfg.max_epochs)
    cfg.merge_from_dict(recipe.to_dict())


def set_patience(cfg: Config, epochs: int) -> None:
    """Stop when the validations of so many epochs have not been better than the best one.

    Args:
        cfg: Config, changed in place.
        epochs: Epochs; rounded up to validations.

    Raises:
        UserError: It is not positive, or the config is not validated.
    """
    if epochs < 1:
        raise UserError(f'invalid --patience {epochs}: set it to 1 epoch or more')
    monitor = (cfg.default_hooks.get('checkpoint') or {}).get('save_best')
    if not isinstance(monitor, str) or monitor == 'auto':
        raise UserError(
            f'--patience follows the metric of default_hooks.checkpoint.save_best, which is {monitor}: set it in the '
            'config to a metric, such as coco/bbox_mAP'
        )
    interval = cfg.train_cfg.get('val_interval', 1)
    hook = dict(type='EarlyStoppingHook', monitor=monitor, min_delta=1e-6, patience=math.ceil(epochs / interval))
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def set_multi_scale(cfg: Config) -> None:
    """Resize every batch to a random size from half to one and a half of the image size, in multiples of 32.

    Args:
        cfg: Config, changed in place.

    Raises:
        UserError: The batches of the config are not MMYOLO's.
    """
    preprocessor = cfg.model.data_preprocessor
    if task_of_config(cfg).name == 'classify':
        raise UserError('--multi-scale is for models that find objects: omit it')
    if not str(preprocessor.type).endswith(('YOLO11DataPreprocessor', 'YOLOv5DetDataPreprocessor')):
        raise UserError(f'--multi-scale needs a YOLO11DataPreprocessor, but the config has {preprocessor.type}')
    height, _ = image_size(cfg)  # the width follows
    sizes = (round(height * (1 - MULTI_SCALE)), round(height * (1 + MULTI_SCALE)))
    resize = dict(type='mmyolo.YOLOXBatchSyncRandomResize', random_size_range=sizes, size_divisor=32, interval=1)
    preprocessor.batch_augments = [*(preprocessor.get('batch_augments') or []), resize]


def choose_classes(cfg: Config, chosen: Sequence[str]) -> None:
    """Train and evaluate on some classes of the data set; objects of the others are not seen.

    Args:
        cfg: Config, changed in place.
        chosen: Names of classes, or their numbers from 0.

    Raises:
        UserError: The data set has no such class.
    """
    dataset = build_quietly(_datasets(cfg)[0], pipeline=[], check_images=False)
    dataset.full_init()
    present = dataset.metainfo['classes']
    numbers = [class_number(name, present) for name in chosen]
    names = tuple(present[i] for i in sorted(set(numbers)))
    for dataset in _datasets(cfg):
        dataset['chosen_classes'] = names
    set_class_count(cfg, len(names))


def merge_classes(cfg: Config) -> None:
    """Take all objects as of one class.

    Args:
        cfg: Config, changed in place.
    """
    for dataset in _datasets(cfg):
        dataset['single_class'] = True
    set_class_count(cfg, 1)


def _datasets(cfg: Config) -> list[Any]:
    """The data sets of a config, whose classes can be chosen."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    found = [innermost_dataset(cfg[loader]) for loader in LOADERS if cfg.get(loader)]
    others = [str(described.get('type')) for described in found if not is_array_dataset(described)]
    if task_of_config(cfg).name == 'classify':
        raise UserError('--classes and --single-cls are for objects: the classes of a classifier are its folders')
    if others:
        raise UserError(f'classes cannot be chosen in a {others[0]}: give the data set by --data')
    return found


def start_from_backbone(cfg: Config, checkpoint: str | Path) -> None:
    """Start the backbone from that of a checkpoint, of any task; see :class:`mmdyn.convert.pretrained.BackboneOf`.

    Args:
        cfg: Config, changed in place.
        checkpoint: The file.

    Raises:
        UserError: There is no such file, the config has ``load_from``, or its backbone is not of a YOLO11.
    """
    if not Path(checkpoint).is_file():
        raise UserError(f'--pretrained {checkpoint}: there is no file at {Path(checkpoint).absolute()}')
    if cfg.get('load_from'):
        raise UserError('--pretrained is for the backbone, --weights for the whole model: omit one')
    backbone: Any = cfg.model.get('backbone') or {}
    if str(backbone.get('type')).rpartition('.')[2] != 'YOLO11Backbone':
        raise UserError(
            f'--pretrained is for a YOLO11Backbone, the config has {backbone.get("type")}: set its init_cfg'
        )
    backbone.init_cfg = dict(type='BackboneOf', checkpoint=str(checkpoint))


def set_class_count(node: Any, count: int) -> None:
    """Set ``num_classes`` wherever a model states it.

    Args:
        node: Config, or a part of it.
        count: Number of classes.
    """
    node = node.model if isinstance(node, Config) else node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        set_class_count(child, count)
    if isinstance(node, dict) and 'num_classes' in node:
        node['num_classes'] = count


def add_logger(cfg: Config, name: str) -> None:
    """Send losses and metrics to a tracker, too.

    Args:
        cfg: Config, changed in place.
        name: One of ``LOGGERS``.

    Raises:
        UserError: There is no such tracker, or its package is missing.
    """
    if name not in LOGGERS:
        raise UserError(f'there is no logger {name!r}: set {", ".join(LOGGERS)}')
    backend, package = LOGGERS[name]
    if find_spec(package) is None:
        raise UserError(f'--logger {name} needs the package {package}: pip install {package}')
    visualizer = cfg.setdefault('visualizer', ConfigDict(type='Visualizer'))
    present = list(visualizer.get('vis_backends') or [])
    if not any(str(each.get('type')).endswith(backend) for each in present):
        described = dict(type=backend)
        if name == 'mlflow':  # its files of old, which MMEngine asks for, are refused by MLflow 3
            local = Path(cfg.work_dir, 'mlflow.db').absolute()
            local.parent.mkdir(parents=True, exist_ok=True)
            described['tracking_uri'] = os.environ.get('MLFLOW_TRACKING_URI') or f'sqlite:///{local}'
        visualizer.vis_backends = [*present, described]
