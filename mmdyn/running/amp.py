"""Mixed precision: replaces the optimizer wrapper of a config."""

import torch
from mmengine.config import Config

from mmdyn.errors import UserError

# Optimizer wrapper -> the one with mixed precision on a GPU, and on a CPU.
AMP_WRAPPERS = {
    'OptimWrapper': ('AmpOptimWrapper', 'CPUAmpOptimWrapper'),
    'YOLOOptimWrapper': ('YOLOAmpOptimWrapper', 'YOLOCPUAmpOptimWrapper'),
}


def enable_amp(cfg: Config) -> None:
    """Train with mixed precision: fp16 on a GPU, bf16 on a CPU that has it.

    Args:
        cfg: Config, changed in place.

    Raises:
        UserError: The config's optimizer wrapper is not supported.
    """
    current = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if any(current in pair for pair in AMP_WRAPPERS.values()):
        return
    if current not in AMP_WRAPPERS:
        raise UserError(f'--amp replaces {" or ".join(AMP_WRAPPERS)}, but optim_wrapper.type is {current}')
    on_gpu, on_cpu = AMP_WRAPPERS[current]
    cfg.optim_wrapper.type = on_gpu if torch.cuda.is_available() else on_cpu
