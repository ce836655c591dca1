"""Frozen layers: neither their parameters nor the statistics of their batch norms change in training."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdyn.models.numbering import first_layers


@HOOKS.register_module()
class FreezeHook(Hook):
    """Freeze the first layers of a detector, with their batch norms; ``frozen_layers`` of a config adds it.

    Args:
        layers: A number of layers of YOLO11 as the original counts them, or ``'backbone'``.

    Raises:
        UserError: The number is not from 1 to 23, or the detector is not a YOLO11.

    Example:
        >>> from types import SimpleNamespace
        >>> runner = SimpleNamespace(model=nn.ModuleDict(dict(backbone=nn.Conv2d(3, 8, 3), neck=nn.Conv2d(8, 8, 1))))
        >>> FreezeHook('backbone').before_run(runner)
        >>> [name for name, parameter in runner.model.named_parameters() if parameter.requires_grad]
        ['neck.weight', 'neck.bias']
    """

    priority = 'VERY_HIGH'  # before the EMA hook copies the model

    def __init__(self, layers: int | str) -> None:
        self.layers = layers

    def before_run(self, runner: Runner) -> None:
        """Freeze the parameters."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.frozen = first_layers(model, self.layers)
        for layer in self.frozen:
            layer.requires_grad_(False)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Keep the statistics: the loop sets the whole model to training at the start of every epoch."""
        for layer in self.frozen:
            if layer.training:
                layer.eval()
