"""Outlines and masks: the original's steps, one by one, on the same polygons, boxes and prototypes."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from ultralytics.data.augment import CopyPaste as OriginalCopyPaste
from ultralytics.data.augment import RandomPerspective
from ultralytics.data.utils import polygons2masks_overlap
from ultralytics.utils.instance import Instances
from ultralytics.utils.ops import process_mask_native, resample_segments

import original
from mmdyn.datasets import CopyPaste, YOLO11RandomAffine
from mmdyn.datasets.outlines import Outlines, resampled
from mmdyn.models.yolo11_segment_head import assemble_masks

pytestmark = pytest.mark.parity

SIZE = (192, 256)  # height and width
SEEDS = range(20)


def polygons(rng, count=12):
    """Stars in and around an image."""
    found = []
    for _ in range(count):
        corners = int(rng.integers(3, 30))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(3, 60) * rng.uniform(0.3, 1, corners)
        centre = rng.uniform(0, SIZE[::-1])
        found.append(np.clip(centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), 0, SIZE[::-1]))
    return found


@pytest.mark.parametrize('corners', [3, 17, 500, 998])
def test_points_of_a_polygon(corners):
    polygon = np.random.default_rng(corners).uniform(0, 300, (corners, 2)).astype(np.float32)
    [expected] = resample_segments([polygon.copy()], 1000)
    assert np.array_equal(resampled(polygon, 1000), expected)


@pytest.mark.parametrize('seed', SEEDS)
def test_outlines_and_boxes_after_an_affine(seed):
    rng = np.random.default_rng(seed)
    outlines = Outlines.of(polygons(rng), *SIZE)
    matrix = original.random_affine(rng)
    expected, points = RandomPerspective().apply_segments(outlines.points.copy(), matrix, SIZE[::-1])
    results = dict(gt_masks=outlines)
    boxes = YOLO11RandomAffine()._warp_outlines(results, matrix, *SIZE)
    assert np.abs(boxes.numpy() - expected).max() < 1e-3
    assert np.abs(results['gt_masks'].points - points).max() < 1e-3
    plane, order = polygons2masks_overlap(SIZE, list(points), 4)
    ours = Outlines(points, *SIZE).plane()  # of the same points, as pixels hang on their last digit
    areas = [int((polygons2masks_overlap(SIZE, [p], 4)[0] > 0).sum()) for p in points]
    if len(set(areas)) == len(areas):  # those of one area are in any order
        assert np.array_equal(np.concatenate([[0], order + 1])[plane], ours)
    assert np.array_equal(plane > 0, ours > 0)


@pytest.mark.parametrize('seed', SEEDS)
def test_copies(seed):
    rng = np.random.default_rng(seed)
    outlines = Outlines.of(polygons(rng, 8), *SIZE)
    image = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    boxes, labels = outlines.boxes(), np.arange(8)
    instances = Instances(boxes.copy(), outlines.points.copy(), bbox_format='xyxy', normalized=False)
    expected = OriginalCopyPaste(p=0.6)(dict(img=image.copy(), cls=labels[:, None], instances=instances))
    found = CopyPaste(0.6)(
        dict(
            img=image,
            gt_bboxes=HorizontalBoxes(torch.from_numpy(boxes)),
            gt_masks=outlines,
            gt_bboxes_labels=labels,
            gt_ignore_flags=np.zeros(8, bool),
        )
    )
    assert found['gt_bboxes_labels'].tolist() == expected['cls'].ravel().tolist()
    assert np.allclose(found['gt_bboxes'].numpy(), expected['instances'].bboxes, atol=1e-4)
    assert np.allclose(found['gt_masks'].points, expected['instances'].segments, atol=1e-4)
    assert (found['img'] != expected['img']).mean() < 1e-3  # a corner may be on a pixel's border


@pytest.mark.parametrize('size', [(480, 640), (427, 640), (1080, 810), (100, 300), (256, 256)])
def test_masks_of_an_image(size):
    """Letterboxed to 320 px, from prototypes of a quarter of it."""
    torch.manual_seed(0)
    prototypes = torch.nn.functional.interpolate(torch.randn(1, 32, 10, 10), (80, 80), mode='bicubic')[0]
    coefficients = torch.randn(30, 32)
    sides = torch.rand(30, 2) * torch.tensor(size[::-1]) / 2 + 10
    corner = torch.rand(30, 2) * torch.tensor(size[::-1])
    boxes = torch.cat([corner, corner + sides], 1)
    gain = min(320 / size[0], 320 / size[1])
    over = [320 - max(round(side * gain), 1) for side in size]
    top, left = (round(o / 2 - 0.1) for o in over)
    padding = (top, over[0] - top, left, over[1] - left)
    expected = process_mask_native(prototypes, coefficients, boxes, size).bool()
    found = assemble_masks(coefficients, prototypes, boxes, size, padding)
    assert found.any((1, 2)).sum() > 20
    union = (found | expected).sum((1, 2)).clamp(min=1)
    assert ((found & expected).sum((1, 2)) / union)[expected.any(2).any(1)].min() > 0.999
