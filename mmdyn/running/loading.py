"""Loading: builds a model in eval mode from a config and a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmdet.models import BaseDetector
from mmengine.config import Config

from mmdyn.checkpoints import read_tensors, refuse_other_architecture
from mmdyn.errors import UserError
from mmdyn.layers import upcycled_state
from mmdyn.models.build import build_model

from .messages import config_errors


class Loaded(NamedTuple):
    """A model with its weights."""

    model: BaseDetector
    classes: tuple[str, ...] | None  # class names, if the checkpoint has them


def class_names(stored: Sequence[str] | None, cfg: Config, count: int) -> list[str]:
    """Class names of a detector: those of the checkpoint, else those of the config, else numbers.

    Args:
        stored: Names in the checkpoint, if any.
        cfg: Config.
        count: Number of classes of the head; lists of names with a different length are ignored.
    """
    loader = cfg.get('test_dataloader') or {}
    dataset = loader.get('dataset', {})
    stated = (dataset.get('metainfo') or {}).get('classes')
    for names in (stored, dataset.get('chosen_classes'), stated):
        if names and len(names) == count:
            return [str(name) for name in names]
    return [f'class {i}' for i in range(count)]


def load_checkpoint_model(cfg: Config, checkpoint: str | Path) -> Loaded:
    """Build the model of a config and load a checkpoint strictly; a static one is upcycled for a dynamic model.

    Args:
        cfg: Config.
        checkpoint: File; the EMA weights of a training checkpoint are used, as in testing.

    Raises:
        UserError: The config does not build, or the checkpoint is missing, unsafe, of another architecture, or
            untrained.
    """
    tensors, classes = read_tensors(checkpoint)
    with config_errors():
        model = build_model(cfg)
    tensors = upcycled_state(model, tensors) or tensors
    refuse_other_architecture(model, tensors, str(checkpoint))
    means = [v for k, v in tensors.items() if k.endswith('running_mean')]
    if means and not any(v.any() for v in means):
        raise UserError(f'{checkpoint} was never trained: its batch norms have no statistics. Train it first')
    # counters of batch norms may be missing; everything else was compared above
    model.load_state_dict(tensors, strict=False)
    return Loaded(model, classes)
