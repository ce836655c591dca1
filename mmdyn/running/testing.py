"""Options of testing, applied to a config."""

from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmyolo.registry import MODELS

from mmdyn.errors import UserError
from mmdyn.tasks import TASKS, Task


def task_of_config(cfg: Config) -> Task:
    """The task of the model of a config; detection for those of other packages."""
    kind = MODELS.get(str((cfg.model.get('bbox_head') or cfg.model.get('head') or {}).get('type')))
    return TASKS[getattr(kind, 'task', 'detect')]


def enable_tta(cfg: Config) -> None:
    """Test with the config's test-time augmentation.

    Args:
        cfg: Config, changed in place.

    Raises:
        UserError: The config has no ``tta_model`` or ``tta_pipeline``, or its task is not detection.
    """
    task = task_of_config(cfg)
    if task.name != 'detect':
        raise UserError(f'--tta is for upright boxes alone, and the config is of {task.title}: omit it')
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UserError(f'--tta needs {key} in the config: set it as in configs/_base_/coco.py')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    use_pipeline_sizes(cfg)


def use_pipeline_sizes(cfg: Config) -> None:
    """Test at the sizes of the test pipeline, which ``batch_shapes_cfg`` would override.

    Args:
        cfg: Config, changed in place.
    """
    if cfg.test_dataloader.dataset.get('batch_shapes_cfg'):
        cfg.test_dataloader.dataset.batch_shapes_cfg = None


def drop_ema(cfg: Config) -> None:
    """Remove hooks that average weights: the weights of a checkpoint are already averaged.

    Args:
        cfg: Config, changed in place.
    """
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if not _averages(hook.get('type'))]


def _averages(kind: str | type) -> bool:
    hook_class = HOOKS.get(kind) if isinstance(kind, str) else kind
    return isinstance(hook_class, type) and issubclass(hook_class, EMAHook)


def enable_fuse(cfg: Config) -> None:
    """Test with batch norms folded into the convolutions before them, dynamic ones too.

    Args:
        cfg: Config, changed in place.
    """
    drop_ema(cfg)  # it would replace the folded weights by its own
    cfg.custom_hooks.append(dict(type='FoldHook', priority='LOWEST'))
