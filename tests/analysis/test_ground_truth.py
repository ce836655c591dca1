"""The objects of a data set as detections, and beside predictions."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmdyn.analysis.ground_truth import labelled, prediction_grid
from mmdyn.inference.onnx_detector import draw
from mmdyn.running import load_config
from mmdyn.running.dataset_images import build_quietly


@pytest.fixture(params=['segment', 'pose'])
def task(request):
    return request.param


@pytest.fixture
def options(digits):
    init_default_scope('mmyolo')
    return {f'{split}_dataloader.dataset.data_root': str(digits) for split in ('val', 'test')}


def test_masks_and_keypoints_of_the_digits_span_their_boxes(task, options):
    dataset = build_quietly(load_config(f'{task}/yolo11n_digits', options).test_dataloader.dataset)
    image, objects = labelled(dataset, 0)
    assert image.shape == (320, 320, 3)
    assert len(objects.boxes) == len(objects.labels) > 1
    if task == 'segment':
        points = [np.argwhere(mask)[:, ::-1] for mask in objects.masks]
        spans = [np.concatenate([each.min(0), each.max(0) + 1]) for each in points]
    else:
        assert objects.keypoint_scores.any(1).all()
        spans = [np.concatenate([each.min(0), each.max(0)]) for each in objects.keypoints]
    np.testing.assert_allclose(spans, objects.boxes, atol=1.5)


def test_the_grid_has_the_objects_on_the_left(task, options, alike):
    cfg, checkpoint = alike(f'{task}/yolo11n_digits.py', **options)
    grid = prediction_grid(cfg, str(checkpoint), [1, 0, 2], columns=2, device='cpu')
    assert grid.shape == (640, 1280, 3)
    assert (grid[320:, 640:] == 255).all()
    dataset = build_quietly(cfg.test_dataloader.dataset)
    image, objects = labelled(dataset, 0)
    names = [dataset.metainfo['classes'][label] for label in objects.labels]
    assert np.array_equal(grid[:320, 640:960], draw(image, objects, names, dataset.annotations.skeleton))
    assert len(dataset.annotations.skeleton) == (4 if task == 'pose' else 0)
