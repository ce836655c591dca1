"""Which checkpoints stop a run: those that do not fit, and for fine-tuning those that hardly fit at all."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmdyn.checkpoints import refuse_other_architecture
from mmdyn.engine.hooks import CheckpointGuardHook
from mmdyn.errors import UserError
from mmdyn.models.build import build_model
from mmdyn.running.config_file import load_config


def model() -> nn.Module:
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))


def load(kept: int, training: bool, resume: bool) -> None:
    """Hand a checkpoint of the first ``kept`` of eight tensors to the hook."""
    built = model()
    wrapper = OptimWrapper(torch.optim.SGD(built.parameters(), 0.1)) if training else None
    runner = SimpleNamespace(model=built, optim_wrapper=wrapper, _resume=resume, _load_from='x.pth')
    CheckpointGuardHook().after_load_checkpoint(
        runner, dict(state_dict=dict(list(model().state_dict().items())[:kept]))
    )


@pytest.mark.parametrize(('kept', 'training', 'resume'), [(8, False, False), (8, True, True), (3, True, False)])
def test_what_fits(kept, training, resume):
    load(kept, training, resume)


@pytest.mark.parametrize(
    ('kept', 'training', 'resume'),
    [(3, False, False), (7, False, True), (7, True, True), (2, True, False)],
    ids=['testing', 'testing resumed', 'resuming', 'fine-tuning from a quarter'],
)
def test_what_does_not(kept, training, resume):
    with pytest.raises(UserError, match='x.pth has another architecture than the config'):
        load(kept, training, resume)


def test_a_plain_state_dict_becomes_a_checkpoint():
    content = model().state_dict()
    runner = SimpleNamespace(model=model(), optim_wrapper=None, _resume=False, _load_from='x.pth')
    checkpoint = dict(content, epoch=3)
    CheckpointGuardHook().after_load_checkpoint(runner, checkpoint)
    assert checkpoint['state_dict'].keys() == content.keys()


@pytest.mark.parametrize('classes', [tuple('0123456789'), None])
def test_other_classes_are_no_other_architecture(classes):
    def built(number):
        return build_model(load_config('yolo11n_digits', {'model.bbox_head.head_module.num_classes': number}))

    meta = dict(dataset_meta=dict(classes=classes)) if classes else {}
    checkpoint = dict(state_dict=built(10).state_dict(), meta=meta)
    message = 'x.pth has 10 classes' + (': 0, 1, 2, 3, 4, 5, 6, 7, …' if classes else '') + '; the config has 3: give'
    with pytest.raises(UserError, match=message):
        refuse_other_architecture(built(3), checkpoint, 'x.pth')
    with pytest.raises(UserError, match='another architecture'):
        refuse_other_architecture(build_model(load_config('yolo11s_coco')), checkpoint, 'x.pth')
