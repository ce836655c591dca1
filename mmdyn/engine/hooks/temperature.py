"""Temperature annealing: nearly uniform routing weights at first, so that all experts learn, then sharper ones.

Dynamic Convolution: Attention over Convolution Kernels, Chen et al., CVPR 2020, https://arxiv.org/abs/1912.03458,
section 3.3: a softmax with temperature 30, reduced to 1 linearly over the first 10 epochs.
"""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmdyn.errors import UserError
from mmdyn.layers import Router
from mmdyn.layers.odconv import Gates


def _routers(model: nn.Module) -> dict[str, Router | Gates]:
    return {name: m for name, m in model.named_modules() if isinstance(m, Router | Gates)}


@HOOKS.register_module()
class TemperatureHook(Hook):
    """Lower the temperature of every router, and of ODConv's attention, to the one that its layer was built with.

    Checkpoints do not contain the temperature: one from before the end of annealing is tested at the layer's own.

    Args:
        begin: Temperature of the first iteration.
        epochs: Epochs of annealing; may be fractional.

    Raises:
        ValueError: ``begin`` or ``epochs`` is not positive.
        UserError: The model has no dynamic convolution, or training ends before the annealing.

    Example:
        >>> hook = HOOKS.build(dict(type='TemperatureHook', begin=30.0, epochs=10))
        >>> hook.begin, hook.epochs
        (30.0, 10)
    """

    def __init__(self, begin: float = 30.0, epochs: float = 10.0) -> None:
        if begin <= 0 or epochs <= 0:
            raise ValueError(f'begin and epochs must be positive, got {begin} and {epochs}')
        self.begin, self.epochs = begin, epochs
        self._own: dict[str, float] = {}

    def before_train(self, runner: Runner) -> None:
        """Store every layer's own temperature."""
        self._own = {name: m.temperature for name, m in _routers(runner.model).items()}
        if not self._own:
            raise UserError('TemperatureHook needs dynamic convolutions, but the model has none: remove the hook')
        if self.epochs > runner.max_epochs:
            raise UserError(
                f'TemperatureHook anneals for {self.epochs:g} epochs, but training has {runner.max_epochs}: '
                'lower its epochs, because the model would be tested at a different temperature than it was trained at'
            )
        self._set(runner, max(runner.iter - 1, 0))  # a resumed run may begin with a validation

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the temperature of this iteration."""
        self._set(runner, runner.iter)

    def _set(self, runner: Runner, iteration: int) -> None:
        progress = min(iteration / (self.epochs * len(runner.train_dataloader)), 1.0)
        for name, router in _routers(runner.model).items():
            router.temperature = self.begin + progress * (self._own[name] - self.begin)

    def after_train(self, runner: Runner) -> None:
        """Restore every layer's own temperature."""
        for name, router in _routers(runner.model).items():
            router.temperature = self._own[name]
