"""Upcycling: dynamic convolutions start from static ones, and compute the same.

Sparse upcycling (https://arxiv.org/abs/2212.05055) copies a layer into every expert. The outputs are the same for every
input, because the experts are identical and their weights have a constant sum:

* softmax: the weights sum to one, so every expert is the static kernel.
* sigmoid: rows of the router come in pairs of opposite sign, and ``sigmoid(z) + sigmoid(-z) = 1``. The last row of an
  odd number is zero, a weight of one half. The weights of M experts sum to M / 2, so an expert is 2 / M of the kernel.

* ODConv: the layer of its scales is zero, so each kind is one half; its experts as with softmax.
* FDConv: its experts differ, and sum to the kernel. The router is zero, so that all have the same weight.

The rows are random, so the experts have different weights for an image, and different gradients from the first step of
training.

Shapes: M experts, O I in and out channels, g groups, k kernel size, P = O * I/g * k * k.
"""

from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdyn.errors import UserError

from .dynamic_conv import DynamicConv, dynamic_layers
from .fdconv import FDConv
from .odconv import ODConv
from .router import Router


@torch.no_grad()
def _preserve_sum(router: Router) -> float:
    """Initialise a router so that its weights have the same sum for every input.

    Returns:
        The sum.
    """
    router.reset_parameters()
    router.bias.zero_()
    if router.activation == 'softmax':
        return 1.0
    pairs = router.weight.shape[0] // 2
    router.weight[1 : 2 * pairs : 2] = -router.weight[0 : 2 * pairs : 2]
    router.weight[2 * pairs :] = 0
    return router.weight.shape[0] / 2


@torch.no_grad()
def _make_constant(layer: DynamicConv) -> tuple[float, float]:
    """Initialise what multiplies identical experts so that the product is the same for every input.

    Returns:
        What multiplies the kernels, and the biases. It is one for bands of frequencies, which are scaled already.
    """
    if isinstance(layer, FDConv):
        assert layer.router is not None
        layer.router.weight.zero_()
        layer.router.bias.zero_()
        return 1.0, 1.0
    total = 1.0 if layer.router is None else _preserve_sum(layer.router)
    if not isinstance(layer, ODConv):
        return total, total
    layer.gates.weight.zero_()
    layer.gates.bias.zero_()
    return total * 0.5 ** sum(size > 0 for size in layer.gates.sizes), total


@torch.no_grad()
def upcycle_conv(layer: DynamicConv, kernel: Tensor, bias: Tensor | None = None) -> None:
    """Make a dynamic convolution compute the same as a static one for every input, in place.

    Args:
        layer: The dynamic convolution.
        kernel: Kernel of the static one, (O, I/g, k, k).
        bias: Its bias, (O,), or None.

    Raises:
        ValueError: ``kernel`` is of another shape, only one of the two has a bias, or the layer has no router.
    """
    if kernel.shape != layer.experts.shape[1:]:
        raise ValueError(
            f'the kernel has shape {tuple(kernel.shape)}, that of the layer {tuple(layer.experts.shape[1:])}'
        )
    if (bias is None) != (layer.bias is None):
        raise ValueError(f'bias of the static convolution: {bias is not None}, of the layer: {layer.bias is not None}')
    if _is_shared(layer):
        raise ValueError('a layer without a router of its own cannot be upcycled: set shared_router=False')
    of_kernels, of_biases = _make_constant(layer)
    layer.weight.copy_(kernel.flatten() / of_kernels)  # (M, P)
    if bias is not None:
        layer.bias.copy_(bias / of_biases)


@torch.no_grad()
def upcycle(model: nn.Module, static: Mapping[str, Tensor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Initialise a dynamic model from the state dict of its static counterpart, in place.

    Args:
        model: Model with dynamic convolutions.
        static: State dict of a static model whose layers have the same names.

    Returns:
        Names of tensors that the static model lacks or has in another shape, which remain unchanged; and names of
        tensors that the dynamic model does not have.

    Raises:
        UserError: A dynamic convolution has no static one of its name and shape, or there is no dynamic convolution.
    """
    layers = dynamic_layers(model)
    if not layers:
        raise UserError('the config has no DynamicConv: set one such as configs/yolo11n_dynconv-bn_coco.py')
    shared = [name for name, layer in layers.items() if _is_shared(layer)]
    if shared:
        raise UserError(f'{shared[0]} shares its router with others, which cannot be upcycled: set shared_router=False')
    dynamic = [name for name in layers if {f'{name}.router.weight', f'{name}.gates.weight'} & static.keys()]
    if dynamic:
        raise UserError(f'the checkpoint is already dynamic: {dynamic[0]} has experts. Set a static one')
    lacking = [n for n, layer in layers.items() if _shape(static, f'{n}.weight') != layer.experts.shape[1:]]
    if lacking:
        raise UserError(
            f'{len(lacking)} of {len(layers)} dynamic convolutions have no static one to start from, {lacking[0]} '
            'first. A static YOLO11 has batch norm and SiLU after its convolutions, and the bare variants do not: '
            'give a config with -bn in its name, of the same scale'
        )
    for name, layer in layers.items():
        upcycle_conv(layer, static[f'{name}.weight'], static.get(f'{name}.bias'))
    own = {f'{name}.{key}' for name, layer in layers.items() for key in layer.state_dict()}
    target = model.state_dict()
    fits = {k: v for k, v in static.items() if k not in own and _shape(target, k) == v.shape}
    model.load_state_dict(fits, strict=False)
    new = tuple(k for k in target if k not in fits and k not in own and 'num_batches_tracked' not in k)
    return new, tuple(k for k in static if k not in fits and k not in own)


def upcycled_state(model: nn.Module, static: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor] | None:
    """The state dict with which a dynamic model computes what its static counterpart does; the log says so.

    Args:
        model: The dynamic model; it is initialised, too.
        static: State dict of the static one.
        seed: Seed of the routers.

    Returns:
        The tensors, without those that ``static`` lacks; None if there is nothing to upcycle: the model is static, or
        its dynamic convolutions have no static ones of their names and shapes.

    Example:
        >>> model = nn.Sequential(DynamicConv(3, 8, 3))
        >>> {k: tuple(v.shape) for k, v in upcycled_state(model, {'0.weight': torch.rand(8, 3, 3, 3)}).items()}
        {'0.weight': (4, 216), '0.router.weight': (4, 3), '0.router.bias': (4,)}
    """
    layers = dynamic_layers(model)
    fits = [
        not _is_shared(layer) and _shape(static, f'{n}.weight') == layer.experts.shape[1:]
        for n, layer in layers.items()
    ]
    if not fits or not all(fits):
        return None
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        new, _ = upcycle(model, static)
    print_log(f'upcycled: {len(layers)} dynamic convolutions start with copies of static kernels', logger='current')
    return {k: v for k, v in model.state_dict().items() if k not in new}


def _is_shared(layer: DynamicConv) -> bool:
    """Whether the router belongs to several layers."""
    return layer.router is None and not isinstance(layer, ODConv)


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
