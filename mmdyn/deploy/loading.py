"""Loading: a config and its checkpoint to a model in eval mode, or one message why not."""

from pathlib import Path
from typing import NamedTuple

import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from torch import Tensor

from mmdyn.analysis.flops import build_model
from mmdyn.engine.checkpoint import classes_of, refuse_other_architecture, state_dict_of
from mmdyn.engine.launch import check_checkpoint, config_errors
from mmdyn.errors import UserError


class Loaded(NamedTuple):
    """A model with its weights."""

    model: BaseDetector
    classes: tuple[str, ...] | None  # names, where the checkpoint has them


def read_tensors(checkpoint: str | Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """The state dict and the class names of a checkpoint file.

    Raises:
        UserError: There is none, or it does not load safely.
    """
    check_checkpoint(str(checkpoint))
    content = torch.load(checkpoint, map_location='cpu', weights_only=True)
    return state_dict_of(content, checkpoint), classes_of(content)


def load_model(cfg: Config, checkpoint: str | Path) -> Loaded:
    """Build the model of a config and load a checkpoint strictly.

    Args:
        cfg: Config.
        checkpoint: File; of a training checkpoint the EMA weights are taken, as in testing.

    Raises:
        UserError: The config does not build, or the checkpoint is missing, unsafe, of another architecture, or of a
            model that was never trained.
    """
    tensors, classes = read_tensors(checkpoint)
    with config_errors():
        model = build_model(cfg)
    refuse_other_architecture(model, tensors, str(checkpoint))
    means = [v for k, v in tensors.items() if k.endswith('running_mean')]
    if means and not any(v.any() for v in means):
        raise UserError(f'{checkpoint} was never trained: its batch norms have seen no image. Train it first')
    # counters of batch norms may be missing; everything else was compared above
    model.load_state_dict(tensors, strict=False)
    return Loaded(model, classes)
