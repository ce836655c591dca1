"""Pose: published counts, the loss of keypoints against a plain loop, positions in an image."""

import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdyn.models import YOLO11PoseHead, YOLO11PoseHeadModule
from mmdyn.models.yolo11_pose_head import COCO_SIGMAS, keypoint_loss, usual_sigmas


def test_sigmas_are_those_of_coco():
    from pycocotools.cocoeval import Params

    assert np.allclose(COCO_SIGMAS, Params('keypoints').kpt_oks_sigmas)
    assert usual_sigmas(17) == COCO_SIGMAS
    assert usual_sigmas(4) == (0.25,) * 4


def test_loss_is_that_of_a_plain_loop():
    torch.manual_seed(0)
    found, wanted = torch.randn(6, 5, 2) * 3, torch.randn(6, 5, 2) * 3
    there, areas, sigmas = torch.rand(6, 5) > 0.4, torch.rand(6) * 9 + 1, torch.rand(5) + 0.1
    there[0], there[1] = False, True
    expected = torch.zeros(6, 5)
    for i in range(6):
        for k in range(5):
            if there[i, k]:
                squared = float(((found[i, k] - wanted[i, k]) ** 2).sum())
                apart = squared / (2 * float(areas[i]) * (2 * float(sigmas[k])) ** 2)
                expected[i, k] = (1 - math.exp(-apart)) * 5 / int(there[i].sum())
    torch.testing.assert_close(keypoint_loss(found, wanted, there, areas, sigmas), expected)


@pytest.fixture
def head():
    module = dict(type='YOLO11PoseHeadModule', num_classes=2, in_channels=[64] * 3, keypoint_shape=(3, 3))
    return YOLO11PoseHead(head_module=module, test_cfg=dict(multi_label=False, nms_pre=9, max_per_img=9))


def test_keypoints_come_from_the_cell_of_their_box(head):
    """A cell whose raw keypoints are nothing has them half a stride before its centre: at its corner."""
    sizes = ((4, 6), (2, 3), (1, 2))
    raw = [torch.zeros(1, 9, *size) for size in sizes]
    raw[1][0, :, 1, 2] = torch.tensor([0, 0, 9.0, 1, 0.5, -9.0, -0.5, 0, 0])
    found = InstanceData(bboxes=torch.zeros(1, 4), priors=torch.tensor([24 + 5]))
    meta = dict(pad_param=np.array([2, 0, 4, 0]), scale_factor=(0.5, 2.0), ori_shape=(20, 80))
    result = head._with_fields(found, 0, [raw], meta, rescale=True)
    corner = np.array([2, 1]) * 16
    places = corner + np.array([[0, 0], [32, 16], [-16, 0]])
    expected = ((places - [4, 2]) / [0.5, 2]).clip(0, [80, 20])
    assert np.allclose(result.keypoints[0], expected)
    assert torch.allclose(result.keypoint_scores[0], torch.tensor([9.0, -9, 0]).sigmoid())
    assert 'priors' not in result
    network = head._with_fields(
        InstanceData(bboxes=torch.zeros(1, 4), priors=torch.tensor([29])), 0, [raw], meta, rescale=False
    )
    assert np.allclose(network.keypoints[0], places)


@pytest.mark.parametrize('shape', [(0, 3), (4, 1), (4, 4)])
def test_shapes_of_keypoints_that_are_refused(shape):
    with pytest.raises(ValueError, match='keypoint_shape must be at least 1 keypoint of 2 or 3 numbers'):
        YOLO11PoseHeadModule(num_classes=1, in_channels=[64] * 3, keypoint_shape=shape)


@pytest.mark.parametrize('sigmas', [(0.1, 0.1), (0.1, 0, 0.1)])
def test_sigmas_that_are_refused(sigmas):
    module = dict(type='YOLO11PoseHeadModule', num_classes=2, in_channels=[64] * 3, keypoint_shape=(3, 3))
    with pytest.raises(ValueError, match='sigmas must be 3 positive numbers'):
        YOLO11PoseHead(head_module=module, sigmas=sigmas)
