"""Optimizer wrappers of the YOLO recipe: gradients summed up to a nominal batch, and bf16 on a CPU.

MMEngine averages the gradients it accumulates; YOLO's losses are sums over images, so averaging would divide the
learning rate. Source of the recipe: https://docs.ultralytics.com/usage/cfg/#train-settings (``nbs``).
"""

from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from mmdyn.errors import UserError
from mmdyn.host import environment


class SummedGradients(OptimWrapper):
    """``OptimWrapper`` that sums gradients, and steps every ``accumulate`` iterations."""

    accumulate = 1

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self._accumulative_counts != 1:
            raise ValueError(
                f'accumulative_counts={self._accumulative_counts} averages gradients; here they are summed: '
                'set nominal_batch_size of YOLOScheduleHook instead'
            )
        self._stepped_at = 0

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Start counting, at ``init_counts`` after a resume; gradients summed before the resume are lost."""
        super().initialize_count_status(model, init_counts, max_counts)
        self._stepped_at = init_counts

    def should_update(self) -> bool:
        """Whether this iteration steps."""
        return self._steps_at(self._inner_count)

    def _steps_at(self, count: int) -> bool:
        return count - self._stepped_at >= self.accumulate

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss unchanged."""
        return loss

    def zero_grad(self, **kwargs) -> None:
        """Clear the gradients; this is called after every step."""
        super().zero_grad(**kwargs)
        self._stepped_at = self._inner_count

    @property
    def has_stepped(self) -> bool:
        """Whether the last iteration stepped."""
        return self._stepped_at == self._inner_count

    @contextmanager
    def optim_context(self, model):
        """Skip gradient synchronisation between processes until the iteration that steps."""
        with super().optim_context(model):
            if self._steps_at(self._inner_count + 1) or not hasattr(model, 'no_sync'):
                yield
            else:
                with model.no_sync():
                    yield


@OPTIM_WRAPPERS.register_module()
class YOLOOptimWrapper(SummedGradients):
    """``OptimWrapper`` for the YOLO recipe, in the parameters' own precision.

    Example:
        >>> optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.01)
        >>> OPTIM_WRAPPERS.build(dict(type='YOLOOptimWrapper', optimizer=optimizer)).accumulate
        1
    """


@OPTIM_WRAPPERS.register_module()
class YOLOAmpOptimWrapper(SummedGradients, AmpOptimWrapper):
    """``AmpOptimWrapper`` for the YOLO recipe, on a GPU.

    Example:
        In a config:

        >>> optim_wrapper = dict(type='YOLOAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01))
        >>> OPTIM_WRAPPERS.get(optim_wrapper['type']).accumulate
        1
    """


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively (AVX512-BF16, AMX-BF16, or Arm's BF16)."""
    return bool({'avx512_bf16', 'amx_bf16', 'bf16'} & environment.cpu_flags())


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """bf16 autocast on a CPU; bf16 has the range of float32, so no loss is scaled.

    Arguments are those of ``OptimWrapper``.

    Raises:
        UserError: The CPU has no native bf16, so autocast would be slow.

    Example:
        In a config:

        >>> optim_wrapper = dict(type='CPUAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01))
        >>> issubclass(OPTIM_WRAPPERS.get(optim_wrapper['type']), OptimWrapper)
        True
    """

    def __init__(self, **kwargs) -> None:
        if not cpu_has_bf16():
            raise UserError(
                'mixed precision on a CPU needs native bf16 (AVX512-BF16, AMX or Arm BF16), and this CPU has none. '
                'Omit --amp; float32 is as fast here'
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model):
        """Autocast to bf16."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


@OPTIM_WRAPPERS.register_module()
class YOLOCPUAmpOptimWrapper(SummedGradients, CPUAmpOptimWrapper):
    """``CPUAmpOptimWrapper`` for the YOLO recipe.

    Example:
        In a config:

        >>> optim_wrapper = dict(type='YOLOCPUAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01))
        >>> OPTIM_WRAPPERS.get(optim_wrapper['type']).accumulate
        1
    """
