"""Upcycling of checkpoints: a dynamic detector that computes the same as a trained static one, compared with it."""

import logging
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
from mmdyn.layers import dynamic_layers, upcycle
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
        {k: tensors[k] if k in tensors and tensors[k].shape == v.shape else state[k] for k, v in expected.items()}
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
