"""Parameter groups of the YOLO recipe: weights with decay, norms and biases without, and custom groups of a config."""

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmyolo.engine.optimizers import YOLOv5OptimizerConstructor
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class YOLOOptimizerConstructor(YOLOv5OptimizerConstructor):
    """``YOLOv5OptimizerConstructor`` with MMEngine's ``custom_keys``, and zero decay of norms and biases.

    The default decay of SGD is zero, that of AdamW is 0.01.

    Args:
        optim_wrapper_cfg: As in ``YOLOv5OptimizerConstructor``.
        paramwise_cfg: The same; ``custom_keys`` gives parameters whose name contains a key their own rate and decay,
            as in ``DefaultOptimWrapperConstructor``: ``{'.router.': dict(lr_mult=10, decay_mult=0)}`` for all
            routers (formerly ``'.routing.'``). A bias with custom factors warms up as weights do.

    Raises:
        ValueError: A key of ``custom_keys`` is in no parameter's name.

    Example:
        >>> cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, weight_decay=0.0005))
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> [group['weight_decay'] for group in YOLOOptimizerConstructor(cfg)(model).optimizer.param_groups]
        [0.0005, 0.0, 0.0]
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.custom_keys = options.pop('custom_keys', {})
        super().__init__(optim_wrapper_cfg, options or None)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of ``model`` in its wrapper."""
        wrapper = super().__call__(model)
        self._add_left_out(wrapper.optimizer, model)
        for group in wrapper.optimizer.param_groups[1:]:
            group['weight_decay'] = 0.0
        names = {id(p): name for name, p in model.named_parameters()}
        # longer keys first, because they are more specific
        for key in sorted(self.custom_keys, key=lambda k: (-len(k), k)):
            present = any(key in name for name in names.values())
            current = key if present else key.replace('routing', 'router')  # the former name
            self._set_apart(wrapper.optimizer, names, current, self.custom_keys[key])
        return wrapper

    @staticmethod
    def _add_left_out(optimizer, model: nn.Module) -> None:
        """Add parameters that are neither ``weight`` nor ``bias``, such as the shared bias of a folded layer."""
        weights, _, biases = optimizer.param_groups
        grouped = {id(p) for group in optimizer.param_groups for p in group['params']}
        for parameter in model.parameters():
            if id(parameter) not in grouped:
                (weights if parameter.ndim > 1 else biases)['params'].append(parameter)

    @staticmethod
    def _set_apart(optimizer, names: dict[int, str], key: str, factors: dict) -> None:
        """Move the parameters of a key from the three groups to additional groups."""
        if not any(key in name for name in names.values()):
            raise ValueError(f'paramwise_cfg.custom_keys has {key!r}, which is in no parameter name')
        for group in optimizer.param_groups[:3]:
            chosen = [p for p in group['params'] if key in names[id(p)]]
            if chosen:
                group['params'] = [p for p in group['params'] if key not in names[id(p)]]
                lr = group['lr'] * factors.get('lr_mult', 1.0)
                decay = group['weight_decay'] * factors.get('decay_mult', 1.0)
                optimizer.add_param_group({**group, 'params': chosen, 'lr': lr, 'weight_decay': decay})
