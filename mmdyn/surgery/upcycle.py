"""Upcycling: makes a dynamic detector that computes the same as a trained static one.

Sparse upcycling (https://arxiv.org/abs/2212.05055) copies a layer into every expert. The outputs are the same for every
input, because the experts are identical and their weights have a constant sum:

* softmax: the weights sum to one, so every expert is the static kernel.
* sigmoid: rows of the router come in pairs of opposite sign, and ``sigmoid(z) + sigmoid(-z) = 1``. The last row of an
  odd number is zero, a weight of one half. The weights of M experts sum to M / 2, so an expert is 2 / M of the kernel.

The rows are random, so the experts have different weights for an image, and different gradients from the first step of
training.

Shapes: M experts, O I in and out channels, g groups, k kernel size, P = O * I/g * k * k.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from torch import Tensor, nn

from mmdyn.checkpoints import read_tensors, refuse_other_architecture, write_checkpoint
from mmdyn.datasets.photograph import photograph
from mmdyn.errors import UserError
from mmdyn.files import new_file
from mmdyn.layers import DynamicConv, Router, dynamic_layers
from mmdyn.models.build import build_model, input_channels
from mmdyn.running.messages import config_errors
from mmdyn.version import __version__

from .counterpart import static_counterpart

TOLERANCE = 1e-5  # relative to the largest output


class Upcycling(NamedTuple):
    """The result of upcycling a static detector."""

    layers: tuple[str, ...]  # the dynamic layers
    num_experts: tuple[int, ...]  # of each layer
    new: tuple[str, ...]  # tensors that the static detector lacks, or has in another shape: newly initialised
    left: tuple[str, ...]  # tensors of the static detector that the dynamic one does not have
    difference: float  # of the outputs in float64, relative to the largest


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
    if layer.router is None:
        raise ValueError('a layer without a router of its own cannot be upcycled: set shared_router=False')
    total = _preserve_sum(layer.router)
    layer.weight.copy_(kernel.flatten() / total)  # (M, P)
    if bias is not None:
        layer.bias.copy_(bias / total)


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
    shared = [name for name, layer in layers.items() if layer.router is None]
    if shared:
        raise UserError(f'{shared[0]} shares its router with others, which cannot be upcycled: set shared_router=False')
    dynamic = [name for name in layers if f'{name}.router.weight' in static]
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


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


@torch.no_grad()
def output_difference(model: nn.Module, other: nn.Module) -> float:
    """Largest difference between the raw outputs of two detectors for a photograph, relative to the largest output.

    It is computed in the precision of the parameters.

    Args:
        model: Detector of MMEngine in eval mode.
        other: Another one.
    """
    image = photograph(channels=input_channels(model)).to(next(model.parameters()).dtype) / 255
    pairs = zip(*(_flat(m(image, None, mode='tensor')) for m in (model, other)), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def _flat(outputs) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [t for part in outputs for t in _flat(part)]


def _initialise(model: BaseDetector) -> None:
    """Initialise a model as for training, without MMEngine's log line for every tensor."""
    logging.disable(logging.INFO)
    try:
        model.init_weights()
    finally:
        logging.disable(logging.NOTSET)


def upcycle_checkpoint(source: str | Path, cfg: Config, target: str | Path, seed: int = 0) -> Upcycling:
    """Write a checkpoint of a dynamic detector that computes the same as a static one.

    Args:
        source: Checkpoint of the static detector.
        cfg: Config of the dynamic one.
        target: Checkpoint to write; must not exist.
        seed: Seed of the routers and of newly initialised tensors.

    Raises:
        UserError: As in :func:`upcycle`; or ``source`` is of another architecture, or ``target`` exists. Nothing is
            written then.
    """
    new_file(target)
    tensors, classes = read_tensors(source)
    torch.manual_seed(seed)
    with config_errors():
        model = build_model(cfg)
        static_model = build_model(static_counterpart(cfg))
    _initialise(model)
    new, left = upcycle(model, tensors)
    refuse_other_architecture(static_model, tensors, str(source), partly=True)
    expected, state = static_model.state_dict(), model.state_dict()
    static_model.load_state_dict(
        {k: tensors[k] if _shape(tensors, k) == v.shape else state[k] for k, v in expected.items()}
    )
    difference = output_difference(model.double().eval(), static_model.double().eval())
    if not difference <= TOLERANCE:
        raise UserError(
            f'outputs differ from those of {source} by {difference:.1e} of the largest: nothing was written'
        )
    meta = dict(cfg=cfg.pretty_text, upcycled_from=Path(source).name, mmdyn_version=__version__)
    if classes is not None and not any('.cls_preds.' in k for k in new):
        meta['dataset_meta'] = dict(classes=classes)
    write_checkpoint(dict(meta=meta, state_dict=model.float().state_dict()), target)
    layers = dynamic_layers(model)
    return Upcycling(tuple(layers), tuple(m.num_experts for m in layers.values()), new, left, difference)
