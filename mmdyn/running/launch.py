"""Launch: builds the runner of a config."""

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmyolo.registry import RUNNERS

from mmdyn.host import keep_freed_memory
from mmdyn.models.yolo11_detector import DETECTORS
from mmdyn.running.messages import config_errors

from .dataset_images import build_quietly, is_array_dataset
from .image_size import LOADERS, innermost_dataset
from .processes import join_processes

# Default hooks that MMEngine itself skips if a config sets them to None; others must not be None.
MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


class TestRunner(Runner):
    """MMEngine's runner, which leaves the config in the work dir as it is: it is that of the training."""

    def dump_config(self) -> None:
        """Nothing: the folder of the log has the config of this test."""


def build_runner(cfg: Config, *, train: bool) -> Runner:
    """Build the runner of a config, and the parts that MMEngine would build later.

    Args:
        cfg: Config.
        train: Build the parts for training and validation; otherwise those for testing.

    Raises:
        UserError: A type is unknown (the message suggests similar names), or an argument is invalid for its type.
    """
    join_processes(cfg)
    loaders = [cfg[key] for key in LOADERS if cfg.get(key)]
    if not torch.cuda.is_available():
        for loader in loaders:
            loader.pin_memory = False  # nothing to pin for; PyTorch would warn
        if train and cfg.get('keep_freed_memory', False):
            keep_freed_memory()
        if cfg.launcher != 'none':
            _distribute_over_cpus(cfg)
    hooks = cfg.get('default_hooks') or {}
    stated = set(hooks)
    for name in [name for name, hook in hooks.items() if hook is None and name not in MMENGINE_HOOKS]:
        del hooks[name]
    # for configs of other packages: never test a checkpoint that does not fit, never resume out of step
    guards = dict(checkpoint_guard='CheckpointGuardHook', resume='ResumeHook')
    missing = [dict(type=guard) for name, guard in guards.items() if name not in stated]
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *missing]
    if train and cfg.get('frozen_layers'):
        cfg.custom_hooks.append(dict(type='FreezeHook', layers=cfg.frozen_layers))
        cfg.find_unused_parameters = True  # their gradients never come
        if cfg.get('model_wrapper_cfg'):
            cfg.model_wrapper_cfg.find_unused_parameters = True
    if train and cfg.get('compile'):
        options = cfg.compile if isinstance(cfg.compile, dict) else {}
        cfg.custom_hooks.append(dict(type='CompileHook', **options))
        cfg.compile = False
    for loader in loaders:
        shapes = loader.dataset.get('batch_shapes_cfg')
        if shapes and shapes.type == 'BatchShapePolicy':
            shapes.batch_size = loader.batch_size  # a config states it once, in the loader
    with config_errors():
        _check_data(cfg, ('train_dataloader', 'val_dataloader') if train else ('test_dataloader',))
        kind = Runner if train else TestRunner
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else kind.from_cfg(cfg)
        if train:
            _ = runner.train_loop, runner.val_loop
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        else:
            _ = runner.test_loop
    return runner


def _check_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Read and check the data before the runner makes its folder; the runner then takes what is in memory."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    for described in [innermost_dataset(cfg[loader]) for loader in loaders if cfg.get(loader)]:
        if is_array_dataset(described):
            build_quietly(described)


def _distribute_over_cpus(cfg: Config) -> None:
    """Replace the parts of MMEngine that need a GPU: the model wrapper and synchronised batch norm."""
    if cfg.model.get('type') in DETECTORS:
        cfg.model.use_syncbn = False
    cfg.setdefault(
        'model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    )
