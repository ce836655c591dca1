"""What the assigner does its own way gives what MMYOLO's way gives."""

import pytest
import torch
from mmyolo.models.task_modules.assigners import BatchTaskAlignedAssigner

from mmdyn.models import YOLO11Assigner

BATCH, BOXES, PRIORS, CLASSES, TOP = 3, 6, 84, 5, 10


@pytest.fixture
def both():
    arguments = dict(topk=TOP, alpha=0.5, beta=6.0, use_ciou=True)
    ours = YOLO11Assigner(**arguments)
    ours.num_classes = CLASSES
    return ours, BatchTaskAlignedAssigner(num_classes=CLASSES, **arguments)


@pytest.fixture
def flags():
    """The last boxes of the last images are padding."""
    real = torch.tensor([BOXES, BOXES - 2, 0])
    return (torch.arange(BOXES) < real[:, None]).float()[..., None]  # (B, G, 1)


@pytest.mark.parametrize('zeros', [0.0, 0.95, 1.0])
def test_candidates(both, flags, zeros):
    metrics = torch.rand(BATCH, BOXES, PRIORS)
    metrics = metrics * (torch.rand_like(metrics) >= zeros)  # most are zero in practice: ties
    mask = flags.repeat(1, 1, TOP).bool()
    ours, theirs = (assigner.select_topk_candidates(metrics, topk_mask=mask) for assigner in both)
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)
    assert ours.sum() == flags.sum() * TOP
    assert torch.equal(both[0].select_topk_candidates(metrics).sum(-1), torch.full((BATCH, BOXES), float(TOP)))


def test_targets(both, flags):
    labels = torch.randint(CLASSES, (BATCH, BOXES, 1)).float() * flags
    boxes = torch.rand(BATCH, BOXES, 4) * 100
    which = torch.randint(BOXES, (BATCH, PRIORS))
    positive = (torch.rand(BATCH, PRIORS) > 0.6).float()
    arguments = labels, boxes, which, positive, BATCH, BOXES
    for ours, theirs in zip(*(assigner.get_targets(*arguments) for assigner in both), strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype))


def test_assignment_of_no_boxes(both):
    ours, theirs = (
        assigner(
            torch.rand(BATCH, PRIORS, 4),
            torch.rand(BATCH, PRIORS, CLASSES),
            torch.rand(PRIORS, 3),
            torch.zeros(BATCH, 0, 1),
            torch.zeros(BATCH, 0, 4),
            torch.zeros(BATCH, 0, 1),
        )
        for assigner in both
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
