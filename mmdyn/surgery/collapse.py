"""Collapse: makes a static detector from a dynamic one, with the mean routing weights over real images.

The kernel of a layer is ``W_b = sum_m r_bm W_m`` for image b, and ``W = sum_m mean_b(r_bm) W_m`` after collapse. At
every position the error of the output is then at most ``|W_b - W| |patch|``. So the relative error of the kernel, which
is exact and needs only the routing weights, shows which layers can be collapsed. Kernels of an :class:`ODConv` are
averaged themselves, because the mean of a product is not the product of the means.

Shapes: N images, M experts, O I in and out channels, g groups, k kernel size.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmdyn.checkpoints import write_checkpoint
from mmdyn.errors import UserError
from mmdyn.files import new_file, write_text
from mmdyn.layers import DynamicConv, ODConv, dynamic_layers
from mmdyn.layers.odconv import Attention
from mmdyn.layers.recording import record_attention, record_routing
from mmdyn.models.build import build_model
from mmdyn.running.dataset_images import dataset_images
from mmdyn.running.loading import load_checkpoint_model
from mmdyn.version import __version__

from .counterpart import option_positions, static_counterpart

Mixture = Tensor | Attention  # what mixes the kernels of N images: routing weights (N, M), or the attention of ODConv
IMAGES_AT_ONCE = 8  # whose kernels are in memory


class LayerCollapse(NamedTuple):
    """The effect of collapse on one layer."""

    name: str
    mean: Tensor  # routing weights, (M,)
    spread: Tensor  # their standard deviation over the images, (M,)
    error: float  # of the kernel, |W_b - W| / |W| in Frobenius norms, mean over the images
    worst: float  # its largest over the images
    collapsed: bool


class Collapsed(NamedTuple):
    """A detector after collapse."""

    cfg: Config
    layers: tuple[LayerCollapse, ...]
    images: int

    def table(self) -> str:
        """The layers as a Markdown table."""
        lines = ['| layer | mean routing | spread | kernel error, mean | worst | |', '|---|---|---|---|---|---|']
        for layer in self.layers:
            mean, spread = (' '.join(f'{v:.3f}' for v in values) for values in (layer.mean, layer.spread))
            state = 'static' if layer.collapsed else 'dynamic'
            lines.append(f'| {layer.name} | {mean} | {spread} | {layer.error:.2%} | {layer.worst:.2%} | {state} |')
        return '\n'.join(lines)


@torch.no_grad()
def observe_mixtures(model: nn.Module, images: Iterable[tuple[Tensor, Any]]) -> dict[str, Mixture]:
    """Run a detector and record what mixes the kernels of every dynamic convolution.

    Args:
        model: Detector of MMEngine in eval mode.
        images: Inputs, (1, 3, H, W), each with its data sample.

    Returns:
        The mixture of every layer by name.
    """
    with record_routing(model) as seen, record_attention(model) as attended:
        for image, sample in images:
            model(image, [sample], mode='tensor')
    mixtures: dict[str, Mixture] = {name: torch.cat(weights) for name, weights in seen.items() if weights}
    for name, parts in attended.items():
        whole = {key: torch.cat(p) for key, *p in zip(Attention._fields, *parts, strict=True) if p[0] is not None}
        mixtures[name] = parts[0]._replace(**whole)
    return {name: mixtures[name] for name in seen}  # in the order of the layers


def _routing(mixture: Mixture) -> Tensor:
    """Routing weights (N, M), ones of a single expert."""
    if isinstance(mixture, Tensor):
        return mixture
    return mixture.channel.new_ones(len(mixture.channel), 1) if mixture.routing is None else mixture.routing


def _kernels(layer: ODConv, attention: Attention) -> Iterator[Tensor]:
    """The kernels of all images, some at a time, (n, O, I/g, k, k)."""
    for first in range(0, len(attention.channel), IMAGES_AT_ONCE):
        yield layer.mixed_kernels(attention.map(itemgetter(slice(first, first + IMAGES_AT_ONCE))))


@torch.no_grad()
def attention_errors(layer: ODConv, attention: Attention) -> Tensor:
    """Relative error of every image's kernel if all images get the mean kernel, (N,), as :func:`kernel_errors`."""
    mean = mean_kernel(layer, attention)['weight'].double()
    distances = [(kernels.double() - mean).flatten(1).norm(dim=1) for kernels in _kernels(layer, attention)]
    return torch.cat(distances) / mean.norm()


@torch.no_grad()
def kernel_errors(experts: Tensor, routing: Tensor) -> Tensor:
    """Relative error of every image's mixed kernel if all images get the mean kernel.

    Args:
        experts: Expert kernels, (M, O, I/g, k, k).
        routing: Routing weights, (N, M).

    Returns:
        ``|W_b - W| / |W|`` in Frobenius norms, (N,).
    """
    flat = experts.flatten(1).double()
    gram = flat @ flat.T  # (M, M)
    mean = routing.double().mean(0)
    off = routing.double() - mean
    squares = torch.einsum('nm,mk,nk->n', off, gram, off).clamp(min=0)
    return (squares / (mean @ gram @ mean)).sqrt()


@torch.no_grad()
def mean_kernel(layer: DynamicConv, mixture: Mixture) -> dict[str, Tensor]:
    """Weight and bias of the static convolution with the mean kernel, by state-dict name.

    Args:
        layer: The dynamic convolution.
        mixture: What mixes its kernels.
    """
    mean = _routing(mixture).mean(0)
    if isinstance(layer, ODConv) and isinstance(mixture, Attention):
        sums = [kernels.sum(0, dtype=torch.float64) for kernels in _kernels(layer, mixture)]
        static = {'weight': (torch.stack(sums).sum(0) / len(mixture.channel)).to(layer.weight.dtype)}
    else:
        static = {'weight': torch.einsum('m,m...->...', mean, layer.experts)}
    if layer.bias is not None:
        static['bias'] = mean @ layer.bias
    return {name: tensor.detach() for name, tensor in static.items()}


def _errors(layer: DynamicConv, mixture: Mixture) -> Tensor:
    if isinstance(layer, ODConv) and isinstance(mixture, Attention):
        return attention_errors(layer, mixture)
    return kernel_errors(layer.experts, _routing(mixture))


def _chosen(errors: Mapping[str, float], threshold: float | None) -> set[str]:
    """Layers to collapse: all, or those of positions in which all layers are within the threshold."""
    if threshold is None:
        return set(errors)
    position = option_positions(errors)
    over = {position[name] for name, error in errors.items() if not error <= threshold}
    return {name for name in errors if position[name] not in over}


def collapse_checkpoint(
    cfg: Config, checkpoint: str | Path, target: str | Path, number: int = 128, threshold: float | None = None
) -> Collapsed:
    """Write the checkpoint and the config of the static detector with mean routing weights.

    Args:
        cfg: Config of the dynamic detector; its training set provides the images.
        checkpoint: Its checkpoint.
        target: Checkpoint to write, ``.pth``; the config is written to the same name with ``.py``. Neither may exist.
        number: Number of images for the mean.
        threshold: Collapse only layers with at most this mean kernel error; layers of one C3k2 collapse together.

    Raises:
        UserError: As in :func:`load_checkpoint_model`; or there is nothing to collapse, or a target exists. Nothing is
            written then.
    """
    if threshold is not None and not 0 <= threshold < math.inf:
        raise UserError(f'the threshold must be at least 0, got {threshold}')
    target, cfg_target = new_file(target), new_file(Path(target).with_suffix('.py'))
    loaded = load_checkpoint_model(cfg, checkpoint)
    layers = dynamic_layers(loaded.model)
    if not layers:
        raise UserError(f'{checkpoint} has no DynamicConv to collapse: it is static')
    mixtures = observe_mixtures(
        loaded.model, dataset_images(cfg, loaded.model.data_preprocessor, 'train', number, 'calibrating')
    )
    errors = {name: _errors(layer, mixtures[name]) for name, layer in layers.items()}
    chosen = _chosen({name: float(e.mean()) for name, e in errors.items()}, threshold)
    if not chosen:
        least = min(float(e.mean()) for e in errors.values())
        raise UserError(f'no layer is within the threshold of {threshold:g}: the smallest kernel error is {least:.3g}')
    reports = [
        LayerCollapse(
            n, r.mean(0), r.std(0, correction=0), float(errors[n].mean()), float(errors[n].max()), n in chosen
        )
        for n, r in ((name, _routing(mixture)) for name, mixture in mixtures.items())
    ]
    static_cfg = static_counterpart(cfg, None if len(chosen) == len(layers) else set(option_positions(chosen).values()))
    state = collapsed_state(loaded.model, chosen, mixtures)
    build_model(static_cfg).load_state_dict(state)  # strictly
    meta = dict(cfg=static_cfg.pretty_text, collapsed_from=Path(checkpoint).name, mmdyn_version=__version__)
    meta |= dict(dataset_meta=dict(classes=loaded.classes)) if loaded.classes else {}
    write_checkpoint(dict(meta=meta, state_dict=state), target)
    write_text(cfg_target, static_cfg.pretty_text)
    return Collapsed(static_cfg, tuple(reports), len(_routing(next(iter(mixtures.values())))))


def collapsed_state(model: nn.Module, chosen: Collection[str], mixtures: Mapping[str, Mixture]) -> dict[str, Tensor]:
    """State dict of the static counterpart.

    Args:
        model: The dynamic detector.
        chosen: Names of the layers that become static.
        mixtures: What mixes the kernels of every layer.
    """
    layers = dynamic_layers(model)
    gone = {f'{name}.{key}' for name in chosen for key in layers[name].state_dict()}
    state = {k: v for k, v in model.state_dict().items() if k not in gone}
    for name in chosen:
        state |= {f'{name}.{key}': value for key, value in mean_kernel(layers[name], mixtures[name]).items()}
    return state
