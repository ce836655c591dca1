"""Compiles the networks of a detector for training with ``torch.compile``.

MMEngine's ``compile`` key compiles ``train_step``, which includes the optimizer and the assigner. Dynamo cannot trace
them.
"""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

PARTS = ('backbone', 'neck', 'bbox_head.head_module')


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile backbone, neck and head module when training begins; ``build_runner`` adds it for ``compile``.

    Args:
        **options: Those of ``torch.compile``, ``mode`` and ``backend`` for example.

    Example:
        >>> HOOKS.build(dict(type='CompileHook', mode='reduce-overhead')).options
        {'mode': 'reduce-overhead'}
    """

    priority = 'LOWEST'  # after the EMA hook has copied the model

    def __init__(self, **options) -> None:
        self.options = options

    def before_train(self, runner: Runner) -> None:
        """Compile in place; parameters keep their names."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        names = dict(model.named_modules())
        parts: list[nn.Module] = [names[part] for part in PARTS if part in names]
        for part in parts or [model]:
            part.compile(**self.options)
        print_log('The networks are compiled in the first iterations, which take minutes.', logger='current')
