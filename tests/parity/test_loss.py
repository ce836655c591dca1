"""The training loss of a batch, with the same weights and targets: box, class and distribution focal loss.

Both packages return each loss times the images of the batch; ours under other names, and summed by MMEngine.
"""

import pytest
import torch
from ultralytics.cfg import get_cfg

import original

pytestmark = pytest.mark.parity

HEIGHT, WIDTH, CLASSES = 224, 320, 5


def scattered(count, low, high, image):
    """Boxes of sides from ``low`` to ``high`` pixels anywhere in the image; (image, label, corners)."""
    sides = torch.rand(count, 2) * (high - low) + low
    corner = torch.rand(count, 2) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    labels = torch.randint(CLASSES, (count, 1)).float()
    return torch.cat([torch.full((count, 1), float(image)), labels, corner, corner + sides], 1)


BATCHES = {
    'middling boxes': lambda: [scattered(6, 20, 120, 0), scattered(3, 20, 120, 1)],
    'an image without': lambda: [scattered(5, 20, 200, 0), scattered(4, 20, 200, 2)],
    'none at all': lambda: [],
    'a crowd': lambda: [scattered(60, 30, 160, 0), scattered(80, 30, 160, 1), scattered(40, 30, 60, 2)],
    'tiny boxes': lambda: [scattered(30, 1, 8, 0), scattered(30, 2, 16, 1), scattered(9, 1, 4, 2)],
    'whole image': lambda: [torch.tensor([[1.0, 2, 0, 0, WIDTH, HEIGHT]]), scattered(5, 100, 220, 0)],
    'twice the same': lambda: [boxes := scattered(5, 40, 90, 0), boxes],
}


def original_losses(model, images, targets):
    size = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    corners = targets[:, 2:]
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1) / size
    batch = dict(img=images, batch_idx=targets[:, 0], cls=targets[:, 1:2], bboxes=boxes)
    return dict(zip(('loss_bbox', 'loss_cls', 'loss_dfl'), model(batch)[0], strict=True))


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-6)).item()


@pytest.mark.parametrize('variant', original.VARIANTS)
def test_losses_and_gradients(pair, variant):
    theirs, ours, *_ = pair('n', variant, CLASSES)
    theirs.args = get_cfg()
    theirs.train(), ours.train()
    apart = {}
    for name, make in BATCHES.items():
        images = torch.rand(3, 3, HEIGHT, WIDTH)
        targets = torch.cat([torch.zeros(0, 6), *make()])
        targets = targets[targets[:, 0].argsort(stable=True)]
        samples = dict(bboxes_labels=targets, img_metas=[dict(batch_input_shape=(HEIGHT, WIDTH))] * 3)
        found, expected = ours(images, samples, mode='loss'), original_losses(theirs, images, targets)
        assert found.keys() == expected.keys()
        assert (expected['loss_bbox'] > 0) == (expected['loss_dfl'] > 0) == bool(len(targets)), name
        apart |= {
            (name, key): relative(found[key].detach().squeeze(), value.detach()) for key, value in expected.items()
        }
        for model, losses in ((ours, found), (theirs, expected)):
            model.zero_grad()
            sum(loss.sum() for loss in losses.values()).backward()
        stem = relative(ours.backbone.stem.conv.weight.grad, theirs.model[0].conv.weight.grad)
        assert stem < 2e-3, (name, stem)
    assert max(apart.values()) < 1e-4, apart
