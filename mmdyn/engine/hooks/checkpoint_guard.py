"""How a checkpoint becomes the weights of a model: upcycled if need be, and refused if it does not fit."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmdyn.checkpoints import class_outputs, classes_of, refuse_other_architecture, start_summary
from mmdyn.layers import upcycled_state


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Fit a checkpoint to the model, or refuse it; MMEngine loads with ``strict=False``.

    A static checkpoint is upcycled for a dynamic model with batch norms. Testing and resuming need every tensor,
    fine-tuning (``load_from``) a quarter of them. Fine-tuning on other classes starts with a new last layer
    of the class branch, and the log says what was taken.

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
        name = runner._load_from or 'the checkpoint'
        tuning = isinstance(runner.optim_wrapper, OptimWrapper | OptimWrapperDict) and not runner._resume
        if tuning:
            _renew_classes(runner, checkpoint)
        if not runner._resume:
            bare = model.module if isinstance(model, BaseTTAModel) else model
            state = upcycled_state(bare, checkpoint['state_dict'], getattr(runner, 'seed', None) or 0)
            checkpoint['state_dict'] = state or checkpoint['state_dict']
        refuse_other_architecture(model, checkpoint, name, partly=tuning)
        if tuning:
            print_log(start_summary(model.state_dict(), checkpoint, name), logger='current')


def _renew_classes(runner: Runner, checkpoint: dict) -> None:
    """Leave out the last layer of the class branch if the checkpoint has seen other classes."""
    learned, loader = classes_of(checkpoint), getattr(runner, 'train_dataloader', None)
    dataset = loader.dataset if isinstance(loader, DataLoader) else None
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if learned is not None and classes is not None and tuple(learned) != tuple(classes):
        for name in class_outputs(checkpoint['state_dict']):
            del checkpoint['state_dict'][name]
