"""The affine warp gives what MMYOLO's perspective warp gives, of an image and of its boxes."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmyolo.datasets.transforms import YOLOv5RandomAffine

from mmdyn.datasets import YOLO11RandomAffine


def sample(boxes):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (130, 170, 3), dtype=np.uint8), (5, 5), 0)
    corner = torch.rand(boxes, 2) * 100
    return dict(
        img=image,
        img_shape=image.shape,
        gt_bboxes=HorizontalBoxes(torch.cat([corner, corner + 2 + torch.rand(boxes, 2) * 60], 1)),
        gt_bboxes_labels=np.arange(boxes),
        gt_ignore_flags=np.zeros(boxes, bool),
    )


@pytest.mark.parametrize('boxes', [0, 1, 30])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(max_rotate_degree=0.0, max_shear_degree=0.0, border=(-40, -30)),
        dict(max_rotate_degree=20.0, max_shear_degree=5.0, scaling_ratio_range=(0.1, 1.9)),
        dict(bbox_clip_border=False, min_bbox_size=10, max_aspect_ratio=3),
    ],
    ids=['yolo11', 'turned', 'unclipped'],
)
def test_equals_mmyolos(arguments, boxes):
    for seed in range(8):
        found = []
        for kind in (YOLO11RandomAffine, YOLOv5RandomAffine):
            torch.manual_seed(seed)
            np.random.seed(seed)
            found.append(kind(**arguments)(sample(boxes)))
        ours, theirs = found
        assert ours['img'].shape == theirs['img'].shape == ours['img_shape']
        assert np.abs(ours['img'].astype(int) - theirs['img']).mean() < 0.5
        assert torch.equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
        assert np.array_equal(ours['gt_bboxes_labels'], theirs['gt_bboxes_labels'])
        assert len(ours['gt_ignore_flags']) == len(ours['gt_bboxes'])
