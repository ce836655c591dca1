"""Averages the buffers of a model over all training processes, before validation and before saving.

Every process updates the running statistics of batch norms with its own images, and ``DistributedDataParallel`` does
not synchronise them here. The original instead takes those of the first process.
"""

from mmengine.dist import all_reduce_params, is_distributed
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


def average_buffers(runner: Runner) -> None:
    """Replace the floating-point buffers of the model and of its EMA by their mean over all processes.

    Args:
        runner: A runner; every process calls this at the same time.
    """
    if not is_distributed():
        return
    averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model')]
    buffers = [b for model in (runner.model, *averages) for b in model.buffers() if b.is_floating_point()]
    all_reduce_params(buffers, op='mean')


@HOOKS.register_module()
class AverageBuffersHook(Hook):
    """Validate with the mean of the processes' buffers; :class:`AtomicCheckpointHook` saves it.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> config.default_hooks.average_buffers  # in every config; None leaves it out
        {'type': 'AverageBuffersHook'}
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Average at the end of an epoch, for hooks that use the model then."""
        average_buffers(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Average within an epoch, for loops that count iterations."""
        average_buffers(runner)
