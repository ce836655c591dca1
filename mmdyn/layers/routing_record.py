"""Watching a model route: the dynamic convolutions it has, and the routing weights that they compute.

Shapes: B batch, N samples, M experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from .dynamic_conv import DynamicConv


def dynamic_layers(model: nn.Module) -> dict[str, DynamicConv]:
    """The dynamic convolutions of a model, by name, in its order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, DynamicConv)}


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Note the routing weights of every dynamic convolution while the model runs.

    Args:
        model: Any model.

    Yields:
        For every layer by name, one (B, M) a batch, without gradient; filled as the model runs.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in dynamic_layers(model)}

    def note(name: str):
        return lambda _, __, weights: seen[name].append(weights.detach())

    hooks = [layer.routing.register_forward_hook(note(name)) for name, layer in dynamic_layers(model).items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
