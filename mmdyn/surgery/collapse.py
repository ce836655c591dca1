"""Collapse: makes a static detector from a dynamic one, with the mean routing weights over real images.

The kernel of a layer is ``W_b = sum_m r_bm W_m`` for image b, and ``W = sum_m mean_b(r_bm) W_m`` after collapse. At
every position the error of the output is then at most ``|W_b - W| |patch|``. So the relative error of the kernel, which
is exact and needs only the routing weights, shows which layers can be collapsed.

Shapes: N images, M experts, O I in and out channels, g groups, k kernel size.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmdyn.checkpoints import write_checkpoint
from mmdyn.errors import UserError
from mmdyn.files import new_file, write_text
from mmdyn.layers import DynamicConv, dynamic_layers, record_routing
from mmdyn.models.build import build_model
from mmdyn.running.dataset_images import calibration_images
from mmdyn.running.loading import load_checkpoint_model
from mmdyn.version import __version__

from .counterpart import option_positions, static_counterpart


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
def observe_routing(model: nn.Module, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Run a detector and record the routing weights of every dynamic convolution.

    Args:
        model: Detector of MMEngine in eval mode.
        images: Inputs, (B, 3, H, W) each.

    Returns:
        For every layer by name, (N, M).
    """
    with record_routing(model) as seen:
        for image in images:
            model(image, None, mode='tensor')
    return {name: torch.cat(weights) for name, weights in seen.items()}


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


def mean_kernel(layer: DynamicConv, routing: Tensor) -> dict[str, Tensor]:
    """Weight and bias of the static convolution with the mean routing weights, by state-dict name.

    Args:
        layer: The dynamic convolution.
        routing: Routing weights, (N, M).
    """
    mean = routing.mean(0)
    static = {'weight': torch.einsum('m,m...->...', mean, layer.experts)}
    if layer.bias is not None:
        static['bias'] = mean @ layer.bias
    return {name: tensor.detach() for name, tensor in static.items()}


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
    routing = observe_routing(loaded.model, calibration_images(cfg, loaded.model.data_preprocessor, number))
    errors = {name: kernel_errors(layer.experts, routing[name]) for name, layer in layers.items()}
    chosen = _chosen({name: float(e.mean()) for name, e in errors.items()}, threshold)
    if not chosen:
        least = min(float(e.mean()) for e in errors.values())
        raise UserError(f'no layer is within the threshold of {threshold:g}: the smallest kernel error is {least:.3g}')
    reports = [
        LayerCollapse(
            n, r.mean(0), r.std(0, correction=0), float(errors[n].mean()), float(errors[n].max()), n in chosen
        )
        for n, r in routing.items()
    ]
    static_cfg = static_counterpart(cfg, None if len(chosen) == len(layers) else set(option_positions(chosen).values()))
    state = collapsed_state(loaded.model, chosen, routing)
    build_model(static_cfg).load_state_dict(state)  # strictly
    meta = dict(cfg=static_cfg.pretty_text, collapsed_from=Path(checkpoint).name, mmdyn_version=__version__)
    meta |= dict(dataset_meta=dict(classes=loaded.classes)) if loaded.classes else {}
    write_checkpoint(dict(meta=meta, state_dict=state), target)
    write_text(cfg_target, static_cfg.pretty_text)
    return Collapsed(static_cfg, tuple(reports), len(next(iter(routing.values()))))


def collapsed_state(model: nn.Module, chosen: Collection[str], routing: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the static counterpart.

    Args:
        model: The dynamic detector.
        chosen: Names of the layers that become static.
        routing: Routing weights of every layer, (N, M).
    """
    layers = dynamic_layers(model)
    gone = {f'{name}.{key}' for name in chosen for key in layers[name].state_dict()}
    state = {k: v for k, v in model.state_dict().items() if k not in gone}
    for name in chosen:
        state |= {f'{name}.{key}': value for key, value in mean_kernel(layers[name], routing[name]).items()}
    return state
