"""Oriented boxes: published counts, ProbIoU by its definition, distances, candidates, suppression."""

import math

import cv2
import numpy as np
import pytest
import torch

from mmdyn.analysis.flops import count_cost
from mmdyn.inference import onnx_detector
from mmdyn.models import build_model
from mmdyn.models.oriented import (
    corners_of,
    from_distances,
    inside,
    prob_iou,
    suppressed,
    to_distances,
    upright_of,
)
from mmdyn.models.oriented_assigner import OrientedAssigner
from mmdyn.running import load_config


@pytest.mark.parametrize(('size', 'gflops'), [(640, 6.632), (1024, 17.224)])
def test_flops(size, gflops):
    assert count_cost(build_model(load_config('obb/yolo11n_dota')), size, size).flops / 1e9 == pytest.approx(
        gflops, abs=5e-4
    )


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([0, 0, 2, 2, -math.pi / 4]), torch.tensor([100, 100, 60, 60, math.pi * 3 / 4])
    return low + torch.rand(count, 5, generator=generator, dtype=torch.float64) * (high - low)


def hellinger_overlap(one, other):
    """One minus the Hellinger distance of two Gaussians, by matrices in float64."""
    means, covariances = [], []
    for x, y, width, height, angle in (one, other):
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        covariances.append(turn @ np.diag([width**2, height**2]) @ turn.T / 12)
        means.append(np.array([x, y]))
    both, apart = (covariances[0] + covariances[1]) / 2, means[0] - means[1]
    distance = apart @ np.linalg.solve(both, apart) / 8
    distance += math.log(np.linalg.det(both) / math.sqrt(np.prod([np.linalg.det(c) for c in covariances]))) / 2
    return 1 - math.sqrt(1 - math.exp(-min(distance, 100)))


def test_prob_iou_is_its_definition():
    boxes, others = random_boxes(200), random_boxes(200, 1)
    others[:100, :2] = boxes[:100, :2] + torch.randn(100, 2, generator=torch.Generator().manual_seed(2)) * 5
    expected = [hellinger_overlap(*pair) for pair in zip(boxes.tolist(), others.tolist(), strict=True)]
    np.testing.assert_allclose(prob_iou(boxes, others), expected, atol=1e-6)
    assert np.ptp(expected) > 0.5


def test_prob_iou_of_degenerate_boxes():
    box = torch.tensor([50.0, 50, 40, 20, 0.3], requires_grad=True)
    others = torch.tensor([[50.0, 50, 40, 20, 0.3], [50, 50, 0, 20, 0.3], [50, 50, 0, 0, 0], [9e4, 9e4, 40, 20, 0.3]])
    prob_iou(box, others, floor=0.01).sum().backward()
    assert box.grad.isfinite().all()
    overlaps = prob_iou(box, others).detach()
    assert overlaps[0] == pytest.approx(1, abs=1e-3)
    assert (overlaps[1:] < 0.2).all()
    assert (overlaps[3] >= -1e-6).all()


def test_distances_and_boxes_are_each_others_way_back():
    boxes = random_boxes(50)
    points = boxes[:, :2] + torch.rand(50, 2, dtype=torch.float64) * 4 - 2
    distances = to_distances(points, boxes)
    torch.testing.assert_close(from_distances(points, distances, boxes[:, 4:]), boxes)
    in_box = inside(points, boxes).diagonal()
    assert in_box.any()
    assert torch.equal((distances >= 0).all(1), in_box)


def test_corners_are_those_of_opencv():
    for box in random_boxes(50).tolist():
        x, y, width, height, angle = box
        expected = cv2.boxPoints(((x, y), (width, height), math.degrees(angle)))
        corners = corners_of(torch.tensor(box)).numpy()
        apart = np.abs(corners[:, None] - expected).sum(2).min(1)
        assert apart.max() < 1e-3
        upright = upright_of(torch.tensor(box)).numpy()
        np.testing.assert_allclose(upright, [*expected.min(0), *expected.max(0)], atol=1e-3)


def test_candidates_are_inside_of_the_turned_rectangle():
    boxes = random_boxes(20)
    boxes[:5, 3] = 4  # thinner than the least side
    points = torch.rand(300, 2, dtype=torch.float64) * 100
    found = OrientedAssigner(topk=10, use_ciou=True).inside(points, boxes)
    for row, (x, y, width, height, angle) in zip(found, boxes.tolist(), strict=True):
        rectangle = ((x, y), (max(width, 16), max(height, 16)), math.degrees(angle))
        contour = cv2.boxPoints(rectangle)
        away = [cv2.pointPolygonTest(contour, point, True) for point in points.tolist()]
        assert all(bool(f) == (d > 0) for f, d in zip(row, away, strict=True) if abs(d) > 1e-3)


@pytest.mark.parametrize('count', [0, 1, 40, 1300])
def test_suppression_is_that_of_a_plain_loop(count):
    boxes = random_boxes(count, 3).float()
    groups = torch.randint(3, (count,), generator=torch.Generator().manual_seed(0))
    overlaps = prob_iou(boxes[:, None], boxes[None]) if count else torch.zeros(0, 0)
    expected = [any(overlaps[i, j] > 0.5 and groups[i] == groups[j] for i in range(j)) for j in range(min(count, 200))]
    found = suppressed(boxes, groups, 0.5)
    assert found[:200].tolist() == expected
    same = (groups[:, None] == groups) & (overlaps > 0.5)
    assert torch.equal(found, same.triu(1).any(0))


@pytest.mark.parametrize('count', [1, 40, 1300])
def test_the_one_file_without_pytorch_computes_the_same(count):
    boxes, others = random_boxes(count, 4), random_boxes(30, 5)
    boxes[::9, 3] = 0
    np.testing.assert_allclose(
        onnx_detector.prob_iou(boxes.numpy(), others.numpy()), prob_iou(boxes[:, None], others), atol=1e-9
    )
    groups = torch.randint(3, (count,), generator=torch.Generator().manual_seed(0))
    found = onnx_detector.overlaps_a_better_one(boxes.numpy(), groups.numpy(), 0.5)
    assert found.tolist() == suppressed(boxes, groups, 0.5).tolist()
    np.testing.assert_allclose(onnx_detector.corners_of(boxes.numpy()), corners_of(boxes))
    np.testing.assert_allclose(onnx_detector.around(corners_of(boxes).numpy()), upright_of(boxes))
