"""Parameter groups of the YOLO recipe: weights with decay, norms and biases without."""

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmyolo.engine.optimizers import YOLOv5OptimizerConstructor
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class YOLOOptimizerConstructor(YOLOv5OptimizerConstructor):
    """``YOLOv5OptimizerConstructor`` that says zero for norms and biases, instead of the optimizer's own default.

    The default of SGD is zero, that of AdamW is 0.01. Arguments are those of ``YOLOv5OptimizerConstructor``.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of ``model`` in its wrapper."""
        wrapper = super().__call__(model)
        for group in wrapper.optimizer.param_groups[1:]:
            group['weight_decay'] = 0.0
        return wrapper
