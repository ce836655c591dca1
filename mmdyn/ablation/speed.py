"""How fast the arms of a comparison are, measured in turn in one process, so that their ratios can be believed.

The logs of the runs have times, too, but runs that shared a machine slowed each other.
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
from mmdyn.models.build import run_network

STEP_ROUNDS = 3  # a training step is timed in one of so many rounds


class Speed(NamedTuple):
    """Median seconds of one model; NaN where they were not measured."""

    latency: float = math.nan  # one image through the network, in float32
    step: float = math.nan  # forward and backward of a training batch through the network


def measure_speed(
    models: Mapping[str, nn.Module], size: tuple[int, int], rounds: int, batch: int, amp: bool
) -> dict[str, Speed]:
    """Time models against each other: the networks alone, without losses, decoding or an optimizer.

    Args:
        models: Detectors, as in :func:`~mmdyn.analysis.flops.run_network`; they are left in training mode.
        size: Height and width of the images in pixels.
        rounds: Rounds of timing; 0 measures nothing.
        batch: Images of a training step.
        amp: The training step is in mixed precision, where the machine has it.

    Returns:
        The speed of each; a detector whose network does not train alone has no ``step``.
    """
    if not rounds:
        return dict.fromkeys(models, Speed())
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    models = {name: m.to(device).to(memory_format=torch.channels_last) for name, m in models.items()}
    one, several = (
        torch.rand(n, 3, *size, device=device).contiguous(memory_format=torch.channels_last) for n in (1, batch)
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
        # whatever a detector of another package makes of it: no time, but a report
        with contextlib.suppress(Exception):
            train(model.train())
            trainable[name] = functools.partial(train, model)
    step = interleaved(trainable, math.ceil(rounds / STEP_ROUNDS))
    return {name: Speed(latency[name]['median'], step[name]['median'] if name in step else math.nan) for name in models}


def _outputs(node: Any) -> Iterator[Tensor]:
    """Tensors that have a gradient, of whatever a network returns."""
    if isinstance(node, Tensor):
        if node.requires_grad:
            yield node
    elif isinstance(node, dict | list | tuple):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _outputs(child)
