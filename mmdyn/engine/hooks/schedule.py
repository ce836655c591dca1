"""Schedule of the YOLO recipe: warm-up, linear decay, weight decay and gradient accumulation by the nominal batch.

Source: https://docs.ultralytics.com/usage/cfg/#train-settings. Differences to MMYOLO's
``YOLOv5ParamSchedulerHook``: epochs and batch size come from the runner, warm-up excludes the last epoch and has no
minimum, gradients accumulate to the nominal batch, and the optimizer keeps plain floats.
"""

import numpy as np
from mmengine.dist import get_world_size
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmyolo.engine.hooks import YOLOv5ParamSchedulerHook

from mmdyn.engine.optim.wrappers import SummedGradients
from mmdyn.errors import UserError


@HOOKS.register_module()
class YOLOScheduleHook(YOLOv5ParamSchedulerHook):
    """Learning rate, momentum, weight decay and accumulation of every iteration.

    Args:
        nominal_batch_size: Gradients are summed over about this many images before a step, and the weight decay is
            scaled by the actual number over this number; None steps every iteration and scales nothing.
        scheduler_type: ``'linear'`` or ``'cosine'``.
        lr_factor: Final learning rate as a fraction of the initial one.
        warmup_mim_iter: Minimum iterations of warm-up, 100 in older versions of the recipe; the name is MMYOLO's.
        **kwargs: As in ``YOLOv5ParamSchedulerHook``; ``max_epochs`` is the runner's.

    Example:
        >>> hook = HOOKS.build(dict(type='YOLOScheduleHook', nominal_batch_size=64, lr_factor=0.01))
        >>> hook.scheduler_type
        'linear'
    """

    warmup_epochs: float

    def __init__(
        self,
        nominal_batch_size: int | None = 64,
        scheduler_type: str = 'linear',
        lr_factor: float = 0.01,
        warmup_mim_iter: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(scheduler_type, lr_factor, warmup_mim_iter=warmup_mim_iter, **kwargs)
        self.nominal_batch_size = nominal_batch_size
        self.scheduler_type = scheduler_type
        self.lr_factor = lr_factor

    def before_train(self, runner: Runner) -> None:
        """Take epochs and batch size from the runner, and scale the weight decay.

        Raises:
            UserError: The loop counts iterations, or the data loader has no batch size.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise UserError(
                f'YOLOScheduleHook counts epochs, and train_cfg is {type(runner.train_loop).__name__}: set '
                "train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=…), or default_hooks.param_scheduler=None and "
                'your own param_scheduler'
            )
        self.scheduler_fn = self.scheduler_maps[self.scheduler_type](self.lr_factor, runner.max_epochs)
        super().before_train(runner)
        self.warmup_epochs = min(self.warmup_epochs, max(runner.max_epochs - 1, 0))
        self._warmup_iters = max(round(self.warmup_epochs * len(runner.train_dataloader)), self.warmup_mim_iter)
        self._accumulate = 1
        if self.nominal_batch_size is None:
            return
        batch_size = _batch_size(runner) * get_world_size()
        self._accumulate = max(round(self.nominal_batch_size / batch_size), 1)
        if self._accumulate > 1 and not isinstance(runner.optim_wrapper, SummedGradients):
            raise UserError(
                f'nominal_batch_size={self.nominal_batch_size} sums gradients over {self._accumulate} iterations: '
                f'use YOLOOptimWrapper instead of {type(runner.optim_wrapper).__name__}, or nominal_batch_size=None'
            )
        scale = batch_size * self._accumulate / self.nominal_batch_size
        for group in runner.optim_wrapper.optimizer.param_groups:
            # The unscaled value is kept, so that a resumed run does not scale it again.
            group.setdefault('initial_weight_decay', group['weight_decay'])
            group['weight_decay'] = group['initial_weight_decay'] * scale
        self._accumulate = min(self._accumulate, runner.max_iters)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set learning rate, momentum and accumulation of this iteration."""
        if self._warmup_iters:
            super().before_train_iter(runner, batch_idx, data_batch)
        for group in runner.optim_wrapper.optimizer.param_groups:
            group.update({key: float(group[key]) for key in ('lr', 'momentum') if key in group})
        if isinstance(runner.optim_wrapper, SummedGradients):
            accumulate = self._accumulate
            if runner.iter < self._warmup_iters:
                accumulate = int(np.interp(runner.iter, [0, self._warmup_iters], [1, accumulate]).round())
            runner.optim_wrapper.accumulate = accumulate

    def after_train_epoch(self, runner: Runner) -> None:
        """Set the learning rate of the next epoch; iterations of the warm-up override it."""
        for group, base in zip(runner.optim_wrapper.optimizer.param_groups, self._base_lr, strict=True):
            group['lr'] = base * self.scheduler_fn(runner.epoch + 1)


def _batch_size(runner: Runner) -> int:
    """Batch size of this process, also with a batch sampler."""
    loader = runner.train_dataloader
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    if not isinstance(size, int):
        raise UserError(
            f'the batch size is unknown, as {type(loader.batch_sampler).__name__} has no batch_size: '
            'set nominal_batch_size=None in YOLOScheduleHook, or give the sampler that attribute'
        )
    return size
