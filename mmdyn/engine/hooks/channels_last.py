"""Channels-last memory format for a whole model: what bf16 on a CPU and tensor cores on a GPU run fastest in."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Turn the model's 4-d parameters to channels-last; activations follow their kernels.

    Example:
        >>> HOOKS.build(dict(type='ChannelsLastHook')).priority
        'VERY_HIGH'
    """

    # Before EMAHook, which holds on to the tensors that it finds: converting replaces them.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Convert the model in place."""
        runner.model.to(memory_format=torch.channels_last)
