"""Exponential moving average of the YOLO recipe: ``decay (1 - exp(-t / tau))`` at the t-th step of the optimizer.

Source: https://docs.ultralytics.com/reference/utils/torch_utils. MMEngine's average instead
copies the weights of the first step and averages after every iteration, also if it only accumulates gradients.
"""

import math

from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor


@MODELS.register_module()
class YOLOEMA(ExponentialMovingAverage):
    """``ExponentialMovingAverage`` with warm-up from the first step; ``steps`` is the number of the next step.

    Args:
        *args: As in ``ExponentialMovingAverage``, as are the keyword arguments.
        gamma: The tau above, in steps.
        **kwargs: Among them ``momentum``, one minus the decay.

    Example:
        >>> ema = YOLOEMA(nn.Linear(2, 1), momentum=0.0001, gamma=2000)
        >>> f'{ema.decay(1):.4f} {ema.decay(20000):.4f}'
        '0.0005 0.9999'
    """

    def __init__(self, *args, gamma: float = 2000, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gamma = gamma
        self.steps.fill_(1)  # at 0, MMEngine copies

    def decay(self, step: int) -> float:
        """Decay at a step, numbered from 1."""
        return (1 - self.momentum) * (1 - math.exp(-step / self.gamma))

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: Tensor) -> None:
        """Average in place.

        Args:
            averaged_param: The average so far.
            source_param: The parameter of the model.
            steps: Number of this step, from 1.
        """
        averaged_param.lerp_(source_param, 1 - self.decay(int(steps)))


@HOOKS.register_module()
class YOLOEMAHook(EMAHook):
    """``EMAHook`` that averages only after optimizer steps and starts from the initial weights of the training.

    Arguments are those of ``EMAHook``; the kind of average is :class:`YOLOEMA` unless ``ema_type`` says otherwise.

    Example:
        >>> HOOKS.build(dict(type='YOLOEMAHook', momentum=0.0001)).ema_cfg['type']
        'YOLOEMA'
    """

    def __init__(self, ema_type: str = 'YOLOEMA', **kwargs) -> None:
        super().__init__(ema_type=ema_type, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Start from the initialised or loaded weights: MMEngine copies the model before it is initialised."""
        super().before_train(runner)
        if runner.iter == 0:
            self.ema_model.module.load_state_dict(self.src_model.state_dict())

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Average if the optimizer has stepped."""
        if getattr(runner.optim_wrapper, 'has_stepped', True):
            super().after_train_iter(runner, *args, **kwargs)
