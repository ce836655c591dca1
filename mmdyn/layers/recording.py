"""Recording of the routing weights that a model computes.

Shapes: B batch, M experts, I input channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from .dynamic_conv import DynamicConv, dynamic_layers
from .odconv import Attention, ODConv
from .router import Router


def routed_layers(model: nn.Module) -> Iterator[tuple[Router, list[str]]]:
    """Every router of a model, with the names of the dynamic convolutions that it routes.

    Args:
        model: Any model; a shared router of a block routes the layers in the block without a router.
    """
    for name, module in model.named_modules():
        router = getattr(module, 'router', None)
        if not isinstance(router, Router):
            continue
        prefix = f'{name}.' if name else ''
        if isinstance(module, DynamicConv):
            yield router, [name]
        else:
            yield router, [prefix + n for n, layer in dynamic_layers(module).items() if layer.router is None]


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record the routing weights of every dynamic convolution while the model runs.

    Args:
        model: Any model.

    Yields:
        For every layer by name, one (B, M) per batch, without gradient; filled while the model runs. An
        :class:`ODConv` with a single expert is not routed, and has none.

    Example:
        >>> with record_routing(DynamicConv(8, 8, 3)) as recorded:
        ...     pass
        >>> recorded
        {'': []}
    """
    recorded: dict[str, list[Tensor]] = {name: [] for name in dynamic_layers(model)}

    def record(names: list[str]):
        def hook(_, __, weights: Tensor) -> None:
            for name in names:
                recorded[name].append(weights.detach())

        return hook

    handles = [router.register_forward_hook(record(names)) for router, names in routed_layers(model)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Attention]]]:
    """Record the attention of every :class:`ODConv` while the model runs, as :func:`record_routing` does.

    Example:
        >>> with record_attention(ODConv(8, 8, 3)) as recorded:
        ...     pass
        >>> recorded
        {'': []}
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ODConv)}
    recorded: dict[str, list[Attention]] = {name: [] for name in layers}

    def record(name: str, layer: ODConv):
        def hook(_, __, outputs) -> None:
            features, scales = outputs
            routing = None if layer.router is None else layer.router.forward(features)  # other hooks see one call
            recorded[name].append(layer.attention(scales, routing).map(Tensor.detach))

        return hook

    handles = [layer.gates.register_forward_hook(record(name, layer)) for name, layer in layers.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
