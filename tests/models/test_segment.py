"""Segmentation: published counts, the loss of masks against a plain loop, its memory, and masks of images."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import ROOT
from mmdyn.analysis.flops import count_cost
from mmdyn.models import build_model
from mmdyn.models.assignment import Positives
from mmdyn.models.yolo11_segment_head import CHUNK, assemble_masks, mask_loss
from mmdyn.running import load_config


@pytest.mark.parametrize(('scale', 'gflops'), [('n', 9.801), ('s', 33.073)])
def test_flops(scale, gflops):
    cost = count_cost(build_model(load_config(f'segment/yolo11{scale}_coco')), 640, 640)
    assert cost.flops / 1e9 == pytest.approx(gflops, abs=5e-4)


def positives(counts, size=40, seed=0):
    """Positives of images with boxes anywhere; the last slots of an image are none."""
    generator = torch.Generator().manual_seed(seed)
    most = max(counts) + 3
    low = torch.rand(len(counts), most, 2, generator=generator) * size * 3
    boxes = torch.cat([low, low + 4 + torch.rand(low.shape, generator=generator) * size], 2)
    present = torch.arange(most) < torch.tensor(counts)[:, None]
    objects = torch.randint(5, present.shape, generator=generator)
    return Positives(objects, objects, present, present.float(), boxes, [most] * len(counts))


def loop_loss(coefficients, prototypes, masks, found):
    """The definition, pixel by pixel."""
    total, count = prototypes.new_zeros(()), 0
    for image in range(len(prototypes)):
        for slot in range(coefficients.shape[1]):
            if not found.present[image, slot]:
                continue
            logits = (coefficients[image, slot][:, None, None] * prototypes[image]).sum(0)
            target = (masks[image] == found.object[image, slot] + 1).to(logits)
            left, top, right, bottom = (found.boxes[image, slot] / 4).tolist()
            lost = logits.new_zeros(())
            for y in range(logits.shape[0]):
                for x in range(logits.shape[1]):
                    if left <= x < right and top <= y < bottom:
                        lost = lost + F.binary_cross_entropy_with_logits(logits[y, x], target[y, x])
            total, count = total + lost / ((right - left) * (bottom - top)), count + 1
    return total / max(count, 1)


@pytest.mark.parametrize('largest', [1, 1000])  # exp(1000) is no float64
@pytest.mark.parametrize('counts', [(3, 0, 2), (0, 0, 0), (1, 1, 1)])
def test_loss_is_that_of_a_plain_loop(counts, largest):
    torch.manual_seed(0)
    found = positives(counts, size=16)
    inputs = torch.randn(3, found.present.shape[1], 4).double(), torch.randn(3, 4, 16, 16).double() * largest
    masks = torch.randint(6, (3, 16, 16))
    losses = []
    for compute in (mask_loss, loop_loss):
        leaves = [x.clone().requires_grad_() for x in inputs]
        loss = compute(*leaves, masks, found)
        grads = torch.autograd.grad(loss, leaves) if loss.requires_grad else (None, None)
        losses.append((loss, *(torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True))))
    for ours, expected in zip(*losses, strict=True):
        torch.testing.assert_close(ours, expected)


def test_loss_of_many_objects_is_that_of_all_at_once(monkeypatch):
    import mmdyn.models.yolo11_segment_head as module

    found = positives((CHUNK * 2 + 5, 7))
    torch.manual_seed(0)
    shapes = (2, found.present.shape[1], 8), (2, 8, 40, 40)
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    masks = torch.randint(6, (2, 40, 40))
    results = []
    for chunk in (CHUNK, 10_000):
        monkeypatch.setattr(module, 'CHUNK', chunk)
        loss = mask_loss(*leaves, masks, found)
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    for some, all_at_once in zip(*results, strict=True):
        torch.testing.assert_close(some, all_at_once)


def test_a_second_derivative_is_refused():
    found, coefficients = positives([2]), torch.rand(1, 5, 4, requires_grad=True)
    loss = mask_loss(coefficients, torch.rand(1, 4, 40, 40), torch.ones(1, 40, 40, dtype=torch.int32), found)
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(loss + coefficients.square().sum(), coefficients, create_graph=True)


def test_prototypes_are_resized_to_the_masks():
    found = positives((3, 2))
    torch.manual_seed(0)
    coefficients, prototypes = torch.randn(2, found.present.shape[1], 4), torch.randn(2, 4, 20, 20)
    masks = torch.randint(6, (2, 40, 40))
    larger = F.interpolate(prototypes, (40, 40), mode='bilinear')
    halved = found._replace(boxes=found.boxes / 2)  # the image is half as large
    torch.testing.assert_close(
        mask_loss(coefficients, prototypes, masks, halved), mask_loss(coefficients, larger, masks, found)
    )


MEMORY = """
import resource, sys, torch
from mmdyn.models import build_model
from mmdyn.running import load_config
torch.manual_seed(0)
model = build_model(load_config('segment/yolo11n_coco')).train()
objects, size = int(sys.argv[1]), 640
low = torch.rand(2 * objects, 2) * 560
rows = torch.cat([torch.arange(2).repeat_interleave(objects)[:, None], torch.zeros(2 * objects, 1), low, low + 70], 1)
masks = torch.randint(objects + 1, (2, 160, 160), dtype=torch.int32)
data = dict(bboxes_labels=rows, counts=(objects, objects), masks=masks, img_metas=[{}] * 2)
sum(model(torch.rand(2, 3, size, size), data, mode='loss').values()).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_memory_of_a_step_with_300_objects_in_each_image():
    done = subprocess.run([sys.executable, '-c', MEMORY, '300'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 6  # GiB


@pytest.mark.parametrize('padding', [(0, 0, 0, 0), (8, 8, 0, 0), (6, 6, 0, 0), (0, 0, 5, 6)])
def test_an_object_keeps_its_place_whatever_the_padding(padding):
    """A prototype that is positive in one place, in the middle of the padded image."""
    top, bottom, left, right = padding
    prototypes = torch.full((1, 16, 16), -1.0)
    prototypes[0, 6:10, 6:10] = 1
    size = (64 - top - bottom, 64 - left - right)
    box = torch.tensor([[0.0, 0, size[1], size[0]]])
    [mask] = assemble_masks(torch.ones(1, 1), prototypes, box, size, padding).numpy()
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    found = np.array([rows[0] + top, rows[-1] + 1 + top, columns[0] + left, columns[-1] + 1 + left])
    assert np.abs(found - [24, 40, 24, 40]).max() <= 1


def test_masks_are_cut_by_their_boxes_and_not_all_at_once(monkeypatch):
    import mmdyn.models.yolo11_segment_head as module

    torch.manual_seed(0)
    coefficients, prototypes = torch.randn(9, 4), torch.randn(4, 16, 16)
    low = torch.rand(9, 2) * 40
    boxes = torch.cat([low, low + 15], 1)
    whole = assemble_masks(coefficients, prototypes, boxes, (64, 64))
    monkeypatch.setattr(module, 'MAX_PIXELS', 1)
    assert torch.equal(assemble_masks(coefficients, prototypes, boxes, (64, 64)), whole)
    for mask, (left, top, right, bottom) in zip(whole.numpy(), boxes.numpy(), strict=True):
        rows, columns = np.nonzero(mask)
        assert left <= columns.min() <= columns.max() < right
        assert top <= rows.min() <= rows.max() < bottom
    assert assemble_masks(coefficients[:0], prototypes, boxes[:0], (64, 64)).shape == (0, 64, 64)
