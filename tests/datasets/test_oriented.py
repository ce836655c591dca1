"""Corners through the steps of a pipeline, oriented boxes of them, and what is said of bad ones."""

import json
import math

import cv2
import numpy as np
import pytest

from mmdyn.analysis.ground_truth import labelled
from mmdyn.annotations.coco import read_coco
from mmdyn.datasets import CheckedCocoDataset, YOLOTextDataset
from mmdyn.datasets.data_source import DataSource
from mmdyn.datasets.oriented import OrientedOutlines, corners_cross, on_a_line, oriented_box
from mmdyn.datasets.tiling import write_tiles
from mmdyn.errors import UserError
from mmdyn.models.oriented import corners_of


def rectangle(x, y, width, height, angle):
    return cv2.boxPoints(((x, y), (width, height), math.degrees(angle)))


@pytest.mark.parametrize('angle', np.linspace(-math.pi / 4, 3 * math.pi / 4, 17, endpoint=False))
def test_a_box_of_its_corners(angle):
    box = oriented_box(rectangle(50, 40, 30, 10, angle))
    np.testing.assert_allclose(box[:4], [50, 40, 30, 10], atol=1e-3)
    assert -math.pi / 4 <= box[4] < 3 * math.pi / 4
    assert math.sin(box[4] - angle) == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(oriented_box(rectangle(50, 40, 10, 30, angle + math.pi / 2))[2:4], [30, 10], atol=1e-3)


def test_flips_mirror_the_angle():
    outlines = OrientedOutlines.of([rectangle(50, 40, 30, 10, 0.5)], 100, 200)
    [box] = outlines.flip().oriented_boxes()
    np.testing.assert_allclose(box, [150, 40, 30, 10, -0.5], atol=1e-3)
    [box] = outlines.flip('vertical').oriented_boxes()
    np.testing.assert_allclose(box, [50, 60, 30, 10, -0.5], atol=1e-3)


def test_what_a_border_cuts_keeps_its_direction():
    whole = rectangle(0, 50, 60, 20, 0.4)
    cut = OrientedOutlines.of([whole, rectangle(50, 50, 8, 4, 0.4), rectangle(-99, 0, 9, 4, 0)], 100, 100)
    first, second, third = cut.clipped(np.zeros((1, 4))).oriented_boxes()
    assert first[4] == pytest.approx(0.4, abs=1e-3)
    assert 30 < first[2] < 60
    assert second == pytest.approx([50, 50, 8, 4, 0.4], abs=1e-3)
    assert not third[2:4].any()
    inside = cv2.intersectConvexConvex(whole, np.array([[0, 0], [100, 0], [100, 100], [0, 100]], np.float32))[1]
    corners = cv2.boxPoints(((first[0], first[1]), (first[2], first[3]), math.degrees(first[4])))
    assert min(cv2.pointPolygonTest(corners, p.tolist(), True) for p in inside.reshape(-1, 2)) > -1e-2


def test_corners_that_cross_or_are_on_a_line():
    corners = np.array([
        [[0, 0], [4, 0], [4, 4], [0, 4]],
        [[0, 0], [4, 4], [4, 0], [0, 4]],
        [[0, 0], [4, 0], [1, 1], [0, 4]],
        [[0, 0], [1, 1], [2, 2], [3, 3]],
    ])  # fmt: skip
    assert corners_cross(corners).tolist() == [False, True, False, False]
    assert on_a_line(corners).tolist() == [False, False, False, True]


def coco(folder, objects, **image):
    annotations = [
        dict(id=i, image_id=1, category_id=1, bbox=[1, 1, 20, 20], area=400, iscrowd=0) | each
        for i, each in enumerate(objects, 1)
    ]
    images = [dict(id=1, file_name='a.png', width=64, height=64) | image]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='ship')])
    (folder / 'a.json').write_text(json.dumps(content))
    cv2.imwrite(str(folder / 'a.png'), np.zeros((64, 64, 3), np.uint8))
    return dict(data_root=str(folder), ann_file='a.json', data_prefix=dict(img=''), corners=True)


def test_a_group_without_corners_is_upright_wherever_it_is_looked_at(tmp_path):
    square = dict(segmentation=[[1, 1, 9, 1, 9, 5, 1, 5]])
    described = coco(tmp_path, [square, dict(bbox=[10, 20, 30, 8], iscrowd=1)])
    dataset = CheckedCocoDataset(**described, metainfo=dict(classes=('ship',)), pipeline=[], test_mode=True)
    _, objects = labelled(dataset, 0)
    np.testing.assert_allclose(objects.oriented_boxes[1], [25, 24, 30, 8, 0])
    described |= dict(type='CheckedCocoDataset', metainfo=dict(classes=('ship',)))
    write_tiles(DataSource(tmp_path, 'COCO', ('ship',), {'train': described}), tmp_path / 'tiles', size=64, gap=0)
    [_, group] = json.loads((tmp_path / 'tiles/annotations/train.json').read_text())['annotations']
    assert group['iscrowd'] == 1
    assert group['bbox'] == [10, 20, 30, 8]


def test_a_box_of_five_numbers_is_oriented(tmp_path):
    coco(tmp_path, [dict(bbox=[30, 30, 20, 8, 0.5]), dict(segmentation=[[1, 1, 9, 1, 9, 5, 1, 5]])])
    table = read_coco(tmp_path / 'a.json', corners=True)
    np.testing.assert_allclose(
        oriented_box(np.reshape(table.segmentation(0), (-1, 2))), [30, 30, 20, 8, 0.5], atol=1e-3
    )
    low, high = table.boxes[0, :2], table.boxes[0, :2] + table.boxes[0, 2:]
    corners = np.reshape(table.segmentation(0), (-1, 2))
    np.testing.assert_allclose([low, high], [corners.min(0), corners.max(0)])


@pytest.mark.parametrize(
    ('box', 'message'),
    [
        ([30, 30, 20, 8, 45], 'annotation 1 has the angle 45, which is more than a full turn: angles are in radians'),
        ([30, 30, 20], r'annotation 1 has bbox \[30.*\], which is not four or five numbers'),
    ],
)
def test_boxes_that_are_not(tmp_path, box, message):
    coco(tmp_path, [dict(bbox=box)])
    with pytest.raises(UserError, match=message):
        read_coco(tmp_path / 'a.json', corners=True)


def test_what_is_said_of_bad_corners(tmp_path):
    good, crossed = [1, 1, 9, 1, 9, 5, 1, 5], [1, 1, 9, 5, 9, 1, 1, 5]
    flat = [1, 1, 5, 5, 9, 9, 12, 12]
    options = coco(tmp_path, [dict(segmentation=[each]) for each in (good, crossed, flat)])
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmdyn.datasets.array_dataset.print_log', lambda message, **_: said.append(message))
        dataset = CheckedCocoDataset(**options)
        assert len(dataset[0]['instances']) == 2
    assert any('1 objects (the first in a.png) have corners that cross: the rectangle' in each for each in said)
    assert any('have corners that are on a line: omitted from training' in each for each in said)


def test_boxes_alone_are_refused(tmp_path):
    options = coco(tmp_path, [{}])
    with pytest.raises(UserError, match='no object has an outline, which oriented boxes need: give their four corners'):
        CheckedCocoDataset(**options).full_init()


@pytest.mark.parametrize('corners', [True, False])
def test_four_corners_of_yolo(tmp_path, corners):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), np.zeros((50, 100, 3), np.uint8))
    points = rectangle(50, 25, 30, 10, 0.5)
    line = ' '.join(map(str, (points / [100, 50]).ravel()))
    (tmp_path / 'labels/a.txt').write_text(f'0 {line}\n')
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmdyn.datasets.yolo_text.print_log', lambda message, *_, **__: said.append(message))
        dataset = YOLOTextDataset(images=str(tmp_path / 'images'), metainfo=dict(classes=('ship',)), corners=corners)
        [instance] = dataset[0]['instances']
    if corners:
        box = oriented_box(np.reshape(instance['mask'], (-1, 2)))
        np.testing.assert_allclose(box, [50, 25, 30, 10, 0.5], atol=1e-3)
    assert any('every object has four corners' in each for each in said) != corners


def test_labels_of_boxes_are_refused_for_oriented_ones(tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), np.zeros((50, 100, 3), np.uint8))
    (tmp_path / 'labels/a.txt').write_text('0 0.5 0.5 0.2 0.2\n')
    dataset = YOLOTextDataset(
        images=str(tmp_path / 'images'), metainfo=dict(classes=('ship',)), corners=True, lazy_init=True
    )
    with pytest.raises(UserError, match='which oriented boxes need: give their four corners'):
        dataset.full_init()


def test_corners_of_a_box_and_back():
    import torch

    box = np.array([30.0, 20, 18, 6, 1.2])
    np.testing.assert_allclose(oriented_box(corners_of(torch.from_numpy(box)).numpy()), box, atol=1e-4)
