"""A checkpoint that does not fit the model stops the run; MMEngine loads with ``strict=False``."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdyn.checkpoints import loading_summary, refuse_other_architecture


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Refuse a checkpoint that does not fit.

    Testing and resuming need every tensor, fine-tuning (``load_from``) a quarter of them.

    Raises:
        UserError: The checkpoint does not fit; the message lists the first keys that differ.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> config.default_hooks.checkpoint_guard  # in every config; None leaves it out
        {'type': 'CheckpointGuardHook'}
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare before loading; a plain state dict is wrapped as a checkpoint for the hooks after this one."""
        if 'state_dict' not in checkpoint:
            checkpoint['state_dict'] = {k: v for k, v in checkpoint.items() if hasattr(v, 'shape')}
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        fine_tuning = isinstance(runner.optim_wrapper, OptimWrapper | OptimWrapperDict) and not runner._resume
        refuse_other_architecture(model, checkpoint, runner._load_from or 'the checkpoint', partly=fine_tuning)
        if fine_tuning:
            print_log(loading_summary(model.state_dict(), checkpoint, runner._load_from), logger='current')
