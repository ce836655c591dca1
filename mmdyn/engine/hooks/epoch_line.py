"""One line per epoch in the terminal: loss, average precision or accuracy, time spent and time left."""

import time
from datetime import timedelta

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdyn.logs import metric_of


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds))).removeprefix('0:')


@HOOKS.register_module()
class EpochLineHook(Hook):
    """Print ``epoch 3/18  loss 21.3  AP 0.214  02:10 spent, 10:50 left``; AP only if the epoch was validated.

    Args:
        metric: Key of the metric, and its label; by default the AP of the task.

    Example:
        >>> HOOKS.build(dict(type='EpochLineHook', metric=('coco/bbox_mAP', 'box AP'))).metric
        ('coco/bbox_mAP', 'box AP')
    """

    priority = 'VERY_LOW'

    def __init__(self, metric: tuple[str, str] | None = None) -> None:
        self.metric = metric
        self._began, self._first, self._line = 0.0, 0, ''

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._began, self._first = time.monotonic(), runner.epoch

    def after_train_epoch(self, runner: Runner) -> None:
        """Store the loss; the line is printed after the validation."""
        done = runner.epoch + 1
        loss = runner.message_hub.get_scalar('train/loss').mean(len(runner.train_dataloader))
        self._line = f'epoch {done:>{len(str(runner.max_epochs))}}/{runner.max_epochs}  loss {loss:.4g}'

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Store the metric of the validation."""
        key = metric_of(metrics or {})
        key, name = self.metric or (key, 'AP' if key != 'accuracy/top1' else 'top-1')
        if self._line and metrics and key in metrics:
            self._line += f'  {name} {metrics[key]:.3f}'

    def before_train_epoch(self, runner: Runner) -> None:
        """Print the line of the previous epoch."""
        self._print(runner)

    def after_train(self, runner: Runner) -> None:
        """Print the last line."""
        self._print(runner)

    def _print(self, runner: Runner) -> None:
        if self._line and is_main_process():
            spent = time.monotonic() - self._began
            left = spent / (runner.epoch - self._first) * (runner.max_epochs - runner.epoch)
            print(f'{self._line}  {_clock(spent)} spent, {_clock(left)} left', flush=True)
        self._line = ''
