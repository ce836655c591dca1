"""The training loss of a batch, with the same weights and targets: box, class and distribution focal loss.

Both packages return each loss times the images of the batch; ours under other names, and summed by MMEngine.
"""

import copy

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg

import original
from mmdyn.convert.key_table import original_names
from mmdyn.datasets.outlines import Outlines

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


LOSSES = {  # by their order in the original; the last one of segmentation is nothing in a YOLO11
    'detect': ('loss_bbox', 'loss_cls', 'loss_dfl'),
    'segment': ('loss_bbox', 'loss_mask', 'loss_cls', 'loss_dfl', ''),
    'pose': ('loss_bbox', 'loss_keypoint', 'loss_visibility', 'loss_cls', 'loss_dfl'),
    'obb': ('loss_bbox', 'loss_cls', 'loss_dfl', 'loss_angle'),
}


def ellipses(targets):
    """Masks of every image (B, h, w): an ellipse in every box, smaller ones on top of larger ones."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    planes = []
    for image in range(3):
        boxes = targets[targets[:, 0] == image, 2:].numpy()
        polygons = [(b[:2] + b[2:]) / 2 + circle * (b[2:] - b[:2]) / 2 for b in boxes]
        planes.append(torch.from_numpy(Outlines.of(polygons, HEIGHT, WIDTH).plane().astype(np.int32)))
    return torch.stack(planes)


def keypoints(targets):
    """Seventeen keypoints of every object, some of them outside of its box, some not labelled."""
    corners = targets[:, None, 2:]
    places = corners[..., :2] + (torch.rand(len(targets), 17, 2) * 1.2 - 0.1) * (corners[..., 2:] - corners[..., :2])
    seen = torch.randint(3, (len(targets), 17)).float()
    if len(seen):
        seen[0] = 0  # an object without any
    shares = places / torch.tensor([WIDTH, HEIGHT])
    ours = dict(keypoints=places, keypoints_visible=seen)
    return ours, dict(keypoints=torch.cat([shares, seen[..., None]], 2))


def oriented_boxes(targets):
    """The boxes turned by any angle, some of them too thin to be trained on; a few are squares."""
    corners = targets[:, 2:]
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    angles = torch.rand(len(targets), 1) * np.pi - np.pi / 4
    boxes = torch.cat([centres, sides, angles], 1)
    boxes[::7, 3] = boxes[::7, 2]
    boxes[3::11, 3] = 1.5
    size = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT, 1.0])
    return dict(oriented_boxes=boxes), dict(bboxes=boxes / size)


EXTRAS = {
    'detect': lambda targets: ({}, {}),
    'segment': lambda targets: (dict(masks=ellipses(targets)),) * 2,
    'pose': keypoints,
    'obb': oriented_boxes,
}


def original_losses(task, model, images, targets, extras):
    size = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    corners = targets[:, 2:]
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1) / size
    batch = dict(img=images, batch_idx=targets[:, 0], cls=targets[:, 1:2], bboxes=boxes) | extras
    losses = dict(zip(LOSSES[task], model(batch)[0], strict=True))
    losses.pop('', None)
    return losses


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-6)).item()


@pytest.fixture
def float64():
    """Tensors of a test have 64 bits from a call on: rounding differs between machines."""
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('variant', original.VARIANTS)
@pytest.mark.parametrize('task', LOSSES)
def test_losses_and_gradients(pair, task, variant, float64):
    theirs, ours, *_ = pair('n', variant, CLASSES, task=task)
    theirs, ours = copy.deepcopy(theirs).double(), copy.deepcopy(ours).double()
    float64()
    theirs.args = get_cfg()
    theirs.train(), ours.train()
    apart = {}
    for name, make in BATCHES.items():
        images = torch.rand(3, 3, HEIGHT, WIDTH)
        targets = torch.cat([torch.zeros(0, 6), *make()])
        targets = targets[targets[:, 0].argsort(stable=True)]
        ours_extras, extras = EXTRAS[task](targets)
        samples = dict(bboxes_labels=targets, img_metas=[dict(batch_input_shape=(HEIGHT, WIDTH))] * 3, **ours_extras)
        found = ours(images, samples, mode='loss')
        expected = original_losses(task, theirs, images, targets, extras)
        assert found.keys() == expected.keys()
        assert (expected['loss_bbox'] > 0) == (expected['loss_dfl'] > 0) == bool(len(targets)), name
        apart |= {
            (name, key): relative(found[key].detach().squeeze(), value.detach()) for key, value in expected.items()
        }
        for model, losses in ((ours, found), (theirs, expected)):
            model.zero_grad()
            sum(loss.sum() for loss in losses.values()).backward()
        gradients = dict(ours.named_parameters())
        names = original_names(ours.state_dict())
        theirs_by_name = dict(theirs.named_parameters())
        for ours_name, parameter in gradients.items():
            there = theirs_by_name[names[ours_name]].grad
            assert relative(parameter.grad, there) < 1e-3 or there.norm() < 1e-4, (name, ours_name)
    assert max(apart.values()) < 1e-6, apart
