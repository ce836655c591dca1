"""Raw outputs: the converted model computes what the original computes."""

import pytest
import torch

import original

pytestmark = pytest.mark.parity

EXTRAS = {
    'detect': (),
    'segment': ('mask_coefficient', 'proto'),
    'pose': ('kpts',),
    'obb': ('angle',),
}  # what a task returns beside boxes and scores
SOME = {
    'detect': 'nm',
    'segment': 'nm',
    'pose': 'ns',
    'obb': 'nl',
}  # scales that are always compared; make parity-all compares the others
CASES = [
    pytest.param(task, scale, variant, marks=[] if scale in SOME[task] else pytest.mark.long)
    for task in EXTRAS
    for scale in original.SCALES
    for variant in original.VARIANTS
]
SIZES = [(1, 32, 32), (3, 96, 160), (1, 224, 96)]  # batch, height, width


def raw_outputs(model, images):
    """What the network returns, by the original's names: (B, channels, A), all levels side by side."""
    model.bbox_head.head_module.training = True  # only to have the logits of the distances returned
    logits, _, bins, *others = model(images, mode='tensor')
    model.bbox_head.head_module.training = False
    boxes = torch.cat([level.flatten(2).transpose(1, 2) for level in bins], 2)
    outputs = dict(boxes=boxes, scores=side_by_side(logits))
    return outputs | dict(zip(EXTRAS[model.bbox_head.task], map(side_by_side, others), strict=True))


def side_by_side(levels):
    return levels if isinstance(levels, torch.Tensor) else torch.cat([level.flatten(2) for level in levels], 2)


def relative_difference(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(('task', 'scale', 'variant'), CASES)
@torch.no_grad()
def test_raw_outputs(pair, task, scale, variant):
    theirs, ours, *_ = pair(scale, variant, task=task)
    for batch, height, width in SIZES:
        images = original.photo_crops(batch, height, width)
        expected = theirs(images)[1]
        for name, found in raw_outputs(ours, images).items():
            assert relative_difference(found, expected[name]) < 1e-4, name
        if batch > 1:
            assert expected['scores'].std(0).max() > 1e-3  # the images are told apart


def test_decoded_boxes_and_scores(pair):
    """What the original's inference returns: centres and sizes in pixels, and probabilities."""
    theirs, ours, *_ = pair(classes=3)
    images = original.photo_crops(2, 160, 128)
    with torch.no_grad():
        expected = theirs(images)[0]  # (B, 4 + classes, A)
        logits, distances = ours(images, mode='tensor')
        head = ours.bbox_head
        points = head.prior_generator.grid_priors([x.shape[2:] for x in logits], device='cpu', with_stride=True)
        corners = [
            head.bbox_coder.decode(p[:, :2], d.flatten(2).transpose(1, 2), p[:, 2]) for p, d in zip(points, distances)
        ]
    x1, y1, x2, y2 = torch.cat(corners, 1).unbind(-1)
    ours_boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
    torch.testing.assert_close(ours_boxes, expected[:, :4], atol=1e-3, rtol=1e-4)
    scores = torch.cat([x.flatten(2).sigmoid() for x in logits], 2)
    torch.testing.assert_close(scores, expected[:, 4:], atol=1e-5, rtol=1e-4)
