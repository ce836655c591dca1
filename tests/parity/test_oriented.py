"""Oriented boxes: ProbIoU, suppression, decoded boxes, and corners under the original's steps."""

import numpy as np
import pytest
import torch
from ultralytics.data.augment import RandomPerspective
from ultralytics.utils.instance import Instances
from ultralytics.utils.metrics import batch_probiou, probiou
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xyxyxyxy2xywhr

import original
from mmdyn.datasets import YOLO11RandomAffine
from mmdyn.datasets.oriented import OrientedOutlines, oriented_box
from mmdyn.models.oriented import corners_of, prob_iou

pytestmark = pytest.mark.parity

SIZE = (192, 256)  # height and width


def random_boxes(count, seed=0, size=200):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([0, 0, 2, 2, -0.785]), torch.tensor([size, size, 80, 80, 2.356])
    return low + torch.rand(count, 5, generator=generator) * (high - low)


@pytest.mark.parametrize('floor', [0.0, 0.01])
def test_prob_iou(floor):
    boxes, others = random_boxes(400), random_boxes(400, 1)
    others[:200, :2] = boxes[:200, :2] + torch.randn(200, 2, generator=torch.Generator().manual_seed(2)) * 4
    others[:20] = boxes[:20]  # equal
    others[20:40, 2] = 0  # without width
    others[40:50, :2] += 1e5  # far apart
    boxes[20:25, 2:4] = others[20:25, 2:4] = 0
    expected = probiou(boxes, others, floor=floor)[:, 0]
    torch.testing.assert_close(prob_iou(boxes, others, floor), expected, atol=1e-6, rtol=0)
    if not floor:
        found, expected = prob_iou(boxes[:, None], others), batch_probiou(boxes, others)
        assert found.isfinite().all()
        usual = expected.isfinite()  # of two lines it may be no number there
        assert usual.float().mean() > 0.999
        torch.testing.assert_close(found[usual], expected[usual], atol=1e-6, rtol=0)


@pytest.mark.parametrize('agnostic', [False, True])
def test_predictions_of_an_image(pair, agnostic):
    """Decoded, suppressed, in the same order."""
    theirs, ours, *_ = pair(classes=3, task='obb')
    images = original.photo_crops(2, 160, 128)
    with torch.no_grad():
        decoded = theirs(images)[0]
        expected = non_max_suppression(
            decoded, 0.05, 0.5, nc=3, multi_label=True, agnostic=agnostic, max_det=50, rotated=True
        )
        head = ours.bbox_head
        cfg = head.test_cfg.copy()
        cfg.update(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5, class_agnostic=agnostic), max_per_img=50)
        metas = [dict(img_shape=(160, 128), ori_shape=(160, 128), scale_factor=(1, 1))] * 2
        found = head.predict_by_feat(*ours(images, mode='tensor'), batch_img_metas=metas, cfg=cfg, rescale=False)
    for here, there in zip(found, expected, strict=True):
        assert 3 < len(there) <= 50
        assert here.labels.tolist() == there[:, 5].long().tolist()
        torch.testing.assert_close(here.scores, there[:, 4], atol=1e-5, rtol=0)
        boxes = torch.cat([there[:, :4], there[:, 6:]], 1)
        torch.testing.assert_close(here.oriented_boxes, boxes, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('seed', range(20))
def test_corners_after_an_affine(seed):
    rng = np.random.default_rng(seed)
    corners = corners_of(random_boxes(20, seed, 256)).numpy()
    matrix = original.random_affine(rng)
    outlines = OrientedOutlines.of(list(corners), *SIZE)
    perspective = RandomPerspective(preserve_obb=True)
    boxes, points = perspective.apply_segments(outlines.points.copy(), matrix, SIZE[::-1])
    expected = Instances(boxes, points, bbox_format='xyxy', normalized=False)
    expected.clip(*SIZE[::-1], preserve_obb=True)
    results = dict(gt_masks=outlines)
    found = YOLO11RandomAffine()._warp_outlines(results, matrix, *SIZE)
    there = expected.bboxes[:, 2:] > expected.bboxes[:, :2]
    there = there.all(1)
    assert there.sum() > 1
    np.testing.assert_allclose(found.numpy()[there], expected.bboxes[there], atol=0.02)
    ours = results['gt_masks'].oriented_boxes()[there]
    theirs = xyxyxyxy2xywhr(expected.segments[there])
    clear = ours[:, 3] > 1  # a sliver has no direction of its own
    assert clear.any()
    overlap = prob_iou(torch.from_numpy(ours[clear]), torch.from_numpy(theirs[clear]))
    assert overlap.min() > 0.99


def test_boxes_of_polygons():
    rng = np.random.default_rng(0)
    polygons = rng.uniform(0, 100, (50, 7, 2)).astype(np.float32)
    np.testing.assert_allclose([oriented_box(p) for p in polygons], xyxyxyxy2xywhr(polygons), atol=1e-4)
