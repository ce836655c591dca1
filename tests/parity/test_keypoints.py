"""Keypoints: the original's decoding and its affine step."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from ultralytics.data.augment import RandomPerspective

import original
from mmdyn.datasets import Keypoints

pytestmark = pytest.mark.parity


@torch.no_grad()
@pytest.mark.parametrize('variant', original.VARIANTS)
def test_decoded_keypoints(pair, variant):
    """What the original's inference returns: positions in pixels, and whether keypoints are there."""
    theirs, ours, *_ = pair('n', variant, 1, task='pose')
    images = original.photo_crops(2, 160, 128)
    expected = theirs(images)[0][:, 5:].unflatten(1, (17, 3))  # (B, K, 3, N)
    logits, _, raw = ours(images, mode='tensor')
    count = sum(level[0, 0].numel() for level in logits)
    for image in range(2):
        found = InstanceData(bboxes=torch.zeros(count, 4), priors=torch.arange(count))
        found = ours.bbox_head._with_fields(found, image, [raw], {}, rescale=False)
        positions = expected[image, :, :2].permute(2, 0, 1)  # (N, K, 2)
        torch.testing.assert_close(found.keypoints, positions, atol=0.01, rtol=1e-4)
        torch.testing.assert_close(found.keypoint_scores, expected[image, :, 2].T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('seed', range(20))
def test_keypoints_after_an_affine(seed):
    rng = np.random.default_rng(seed)
    height, width = 192, 256
    points = rng.uniform(0, (width, height), (9, 7, 2)).astype(np.float32)
    seen = rng.integers(0, 3, (9, 7, 1)).astype(np.float32)
    matrix = original.random_affine(rng)
    expected = RandomPerspective().apply_keypoints(np.concatenate([points, seen], 2), matrix, (width, height))
    ours = Keypoints(torch.from_numpy(points), torch.from_numpy(seen[..., 0]))
    ours.project_(matrix)
    ours.clip_((height, width))
    there = ours.keypoints_visible.numpy() > 0
    assert np.array_equal(there, expected[..., 2] > 0)
    assert 0 < there.sum() < there.size
    assert np.abs(ours.keypoints.numpy()[there] - expected[..., :2][there]).max() < 1e-3
