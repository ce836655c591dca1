"""Close mosaic: a different pipeline for the last epochs, counted from the end."""

from mmdet.engine.hooks import PipelineSwitchHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class CloseMosaicHook(PipelineSwitchHook):
    """``mmdet.PipelineSwitchHook`` that counts from the end, so it need not change with ``max_epochs``.

    Args:
        num_last_epochs: Number of epochs with ``switch_pipeline``; at most half of all.
        switch_pipeline: The pipeline of the last epochs, or the name of the config variable that holds it.

    Example:
        >>> cfg = dict(type='CloseMosaicHook', num_last_epochs=10, switch_pipeline='last_epochs_pipeline')
        >>> HOOKS.build(cfg).num_last_epochs
        10
    """

    switch_pipeline: str | list[dict]

    def __init__(self, num_last_epochs: int, switch_pipeline: str | list[dict]) -> None:
        super().__init__(switch_epoch=0, switch_pipeline=switch_pipeline)
        self.num_last_epochs = num_last_epochs

    def before_train(self, runner: Runner) -> None:
        """Count back from the runner's epochs."""
        self.switch_epoch = runner.max_epochs - min(self.num_last_epochs, runner.max_epochs // 2)
        if isinstance(self.switch_pipeline, str):
            self.switch_pipeline = runner.cfg[self.switch_pipeline]
