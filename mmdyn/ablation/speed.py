"""Speed of the arms of a comparison, measured in turn in one process, so that their ratios are reliable.

The logs of the runs also have times, but runs that shared a machine slowed each other down.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmdyn.analysis.timing import interleaved
from mmdyn.engine.optim.wrappers import cpu_has_bf16
from mmdyn.models.build import input_channels, run_network

STEP_ROUNDS = 3  # a training step is timed in one third of the rounds


class Speed(NamedTuple):
    """Median seconds of one model; NaN if not measured."""

    latency: float = math.nan  # one image through the network, in float32
    step: float = math.nan  # forward and backward of a training batch through the network


def measure_speed(
    models: Mapping[str, nn.Module], size: tuple[int, int], rounds: int, batch: int, amp: bool
) -> dict[str, Speed]:
    """Time the networks of several models in turn, without losses, decoding or an optimizer.

    Args:
        models: Detectors, as in :func:`~mmdyn.analysis.flops.run_network`; they are left in training mode.
        size: Height and width of the images in pixels.
        rounds: Rounds of timing; 0 measures nothing.
        batch: Batch size of a training step.
        amp: Run the training step in mixed precision, if the machine supports it.

    Returns:
        The speed of each model; ``step`` is NaN if the network alone cannot be trained.
    """
    if not rounds:
        return dict.fromkeys(models, Speed())
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    models = {name: m.to(device).to(memory_format=torch.channels_last) for name, m in models.items()}
    channels = input_channels(next(iter(models.values())))
    one, several = (
        torch.rand(n, channels, *size, device=device).contiguous(memory_format=torch.channels_last) for n in (1, batch)
    )
    dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
    amp = amp and (device.type == 'cuda' or cpu_has_bf16())

    def wait() -> None:
        if device.type == 'cuda':
            torch.cuda.synchronize()

    def infer(model: nn.Module) -> None:
        with torch.no_grad():
            run_network(model, one)
        wait()

    def train(model: nn.Module) -> None:
        with torch.autocast(device.type, dtype, enabled=amp):
            total = torch.stack([t.float().mean() for t in _outputs(run_network(model, several))]).sum()
        total.backward()
        model.zero_grad(set_to_none=True)
        wait()

    latency = interleaved({name: functools.partial(infer, model.eval()) for name, model in models.items()}, rounds)
    trainable = {}
    for name, model in models.items():
        # a detector of another package may raise any error: the report then has no time
        with contextlib.suppress(Exception):
            train(model.train())
            trainable[name] = functools.partial(train, model)
    step = interleaved(trainable, math.ceil(rounds / STEP_ROUNDS))
    return {name: Speed(latency[name]['median'], step[name]['median'] if name in step else math.nan) for name in models}


def _outputs(node: Any) -> Iterator[Tensor]:
    """Tensors that require a gradient, in the nested outputs of a network."""
    if isinstance(node, Tensor):
        if node.requires_grad:
            yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _outputs(child)
