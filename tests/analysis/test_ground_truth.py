"""The objects of a data set as detections, beside predictions, and after the pipeline."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmdyn.analysis.browse import after_pipeline
from mmdyn.analysis.ground_truth import labelled, prediction_grid
from mmdyn.datasets import CheckedCocoDataset
from mmdyn.inference.load import load_model
from mmdyn.inference.onnx_detector import around, corners_of, draw
from mmdyn.running import load_config
from mmdyn.running.dataset_images import build_quietly


@pytest.fixture(params=['segment', 'pose', 'obb'])
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
    elif task == 'obb':
        corners = corners_of(objects.oriented_boxes)  # those of a turned rectangle reach beyond the ink
        assert (around(corners) - objects.boxes <= [1.5, 1.5, 40, 40]).all()
        assert (around(corners) - objects.boxes >= [-40, -40, -1.5, -1.5]).all()
        return
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
    predicted = load_model(cfg, str(checkpoint), 'cpu')(image, 0.3).draw()
    assert np.array_equal(grid[:320, 960:], predicted)


def test_the_grid_has_images_of_several_sizes_and_without_objects(task, options, alike, tmp_path):
    cfg, checkpoint = alike(f'{task}/yolo11n_digits.py', **options)
    source = cfg.test_dataloader.dataset
    content = json.loads(Path(source.data_root, source.ann_file).read_text())
    second = content['images'][1]['id']
    content['images'] = content['images'][:2]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] == second]
    content['images'][0].update(width=200, height=160)
    for image in content['images']:
        pixels = cv2.imread(str(Path(source.data_root, source.data_prefix.img, image['file_name'])))
        cv2.imwrite(str(tmp_path / image['file_name']), pixels[: image['height'], : image['width']])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    source.pop('turn', None)
    source.update(data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img=''), type='CheckedCocoDataset')
    grid = prediction_grid(cfg, str(checkpoint), [0, 1], columns=1, device='cpu')
    assert grid.shape == (640, 640, 3)
    smaller = next(i for i in (0, 1) if (grid[320 * i + 160 : 320 * (i + 1)] == 255).all())
    assert (grid[320 * smaller : 320 * smaller + 160, 200:320] == 255).all()


def test_objects_after_the_pipeline_lie_in_their_boxes(task, options):
    cfg = load_config(
        f'{task}/yolo11n_digits',
        options | {'train_dataloader.dataset.data_root': options['val_dataloader.dataset.data_root']},
    )
    np.random.seed(0)
    dataset = build_quietly(cfg.train_dataloader.dataset)
    image, objects = after_pipeline(dataset, 0, labelled(dataset, 0)[1])
    assert image.shape == (320, 320, 3)
    assert len(objects.boxes) > 1
    if task == 'segment':
        points = [np.argwhere(mask)[:, ::-1] for mask in objects.masks if mask.sum() > 100]
        boxes = objects.boxes[[mask.sum() > 100 for mask in objects.masks]]
    elif task == 'obb':
        points, boxes = objects.oriented_boxes[:, None, :2], objects.boxes
    else:
        points = [p[seen] for p, seen in zip(objects.keypoints, objects.keypoint_scores, strict=True)]
        boxes = objects.boxes
    assert sum(map(len, points))
    for each, (left, top, right, bottom) in zip(points, boxes, strict=True):
        assert ((each >= (left - 4, top - 4)) & (each <= (right + 4, bottom + 4))).all()


def test_objects_of_a_test_image_go_with_its_resizing_and_padding(task, options):
    dataset = build_quietly(load_config(f'{task}/yolo11n_digits', options).test_dataloader.dataset)
    before = labelled(dataset, 0)[1]
    resize, pad = dataset.pipeline.transforms[1:3]
    resize.scale, pad.scale = (160, 160), (192, 160)
    dataset.shapes = None
    image, after = after_pipeline(dataset, 0, before)
    assert image.shape == (160, 192, 3)
    np.testing.assert_allclose(after.boxes, before.boxes / 2 + [16, 0, 16, 0])
    if task == 'segment':
        small = np.stack([cv2.resize(mask.astype(np.uint8), (160, 160)) for mask in before.masks])
        assert np.mean(np.stack(after.masks)[:, :, 16:176] != small) < 0.01
    elif task == 'obb':
        np.testing.assert_allclose(after.oriented_boxes, before.oriented_boxes * [*[0.5] * 4, 1] + [16, 0, 0, 0, 0])
    else:
        np.testing.assert_allclose(after.keypoints, before.keypoints / 2 + [16, 0])


def test_images_of_16_bits_are_drawn_and_predicted_with_all_of_them(tmp_path):
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    one = dict(id=1, image_id=1, category_id=1, bbox=[4, 4, 20, 20], area=400, iscrowd=0)
    images = [dict(id=1, file_name='a.png', width=64, height=64)]
    content = dict(images=images, annotations=[one], categories=[dict(id=1, name='a')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    pipeline = [dict(type='LoadImage', channels=1, to_float32=True)]
    dataset = CheckedCocoDataset(
        data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img=''), pipeline=pipeline
    )
    image, _ = labelled(dataset, 0)
    assert len(np.unique(image)) == pixels.size
