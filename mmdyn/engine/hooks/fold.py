"""Testing with batch norms folded into the convolutions before them."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmdyn.layers import fold_batch_norms


@HOOKS.register_module()
class FoldHook(Hook):
    """Fold batch norms into static and dynamic convolutions when a test begins, after the checkpoint is loaded.

    Example:
        >>> from types import SimpleNamespace
        >>> from mmdyn.layers import DynamicConv
        >>> model = nn.Sequential(DynamicConv(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> HOOKS.build(dict(type='FoldHook')).before_test_epoch(SimpleNamespace(model=model))
        >>> type(model[1]).__name__
        'Identity'
    """

    def before_test_epoch(self, runner: Runner) -> None:
        """Fold, and log how many."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        before = sum(isinstance(m, _BatchNorm) for m in model.modules())
        fold_batch_norms(model.eval())
        left = sum(isinstance(m, _BatchNorm) for m in model.modules())
        print_log(f'{before - left} of {before} batch norms folded into convolutions', logger='current')
