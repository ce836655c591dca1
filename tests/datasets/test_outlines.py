"""Outlines keep the corners of polygons, follow the border of an image, and become masks of any number of objects."""

import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.mask import PolygonMasks
from mmengine.registry import init_default_scope
from mmyolo.datasets.transforms import Polygon2Mask

from mmdyn.datasets import CheckedCocoDataset, find_data
from mmdyn.datasets.outlines import RATIO, Outlines, resampled, small_mask, visible_box
from mmdyn.errors import UserError
from mmdyn.metrics import DatasetCocoMetric
from mmdyn.running.dataset_images import build_quietly

SIZE = (160, 224)  # height and width


def star(centre, radius, corners=9, seed=0):
    """A polygon that is not convex, (p, 2)."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radii = radius * (0.3 + 0.7 * np.random.default_rng(seed).random(corners))
    return np.array(centre) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


def scattered(count, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.uniform((-10, -10), (SIZE[1] + 10, SIZE[0] + 10), (count, 2))
    return [star(c, r, seed=i) for i, (c, r) in enumerate(zip(centres, rng.uniform(2, 40, count), strict=True))]


def drawn_whole(points):
    """A mask as it is defined: the whole image, then a quarter of it."""
    whole = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(whole, [points.astype(np.int32)], 1)
    return cv2.resize(whole, (SIZE[1] // RATIO, SIZE[0] // RATIO))


@pytest.mark.parametrize('corners', [3, 4, 50, 998, 999])
def test_resampling_keeps_every_corner(corners):
    polygon = star((50, 50), 40, corners)
    points = resampled(polygon, 1000)
    assert points.shape == (1000, 2)
    apart = np.abs(points[:, None] - polygon.astype(np.float32)).max(2)
    assert (apart.min(0) == 0).all()
    assert (np.diff(apart.argmin(0)) > 0).all()  # in their order


def test_a_polygon_of_many_corners_keeps_them_beside_a_simple_one():
    outlines = Outlines.of([star((50, 50), 40, 3000), star((50, 50), 40, 4)], *SIZE)
    assert outlines.points.shape == (2, 3001, 2)
    both = Outlines.cat([outlines, Outlines.of([star((20, 20), 9)], *SIZE)])
    assert both.points.shape == (3, 3001, 2)
    assert np.array_equal(
        small_mask(both.points[2], *SIZE)[0], small_mask(resampled(star((20, 20), 9), 1000), *SIZE)[0]
    )


@pytest.mark.parametrize('count', [0, 1, 40])
def test_the_part_that_is_drawn_is_that_of_the_whole_image(count):
    for points in Outlines.of(scattered(count), *SIZE).points:
        mask, (top, left) = small_mask(points, *SIZE)
        expected = drawn_whole(points)
        found = np.zeros_like(expected)
        found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        assert np.array_equal(found, expected)


@pytest.mark.parametrize('count', [0, 3, 127, 128, 300])
def test_a_plane_has_the_smallest_object_on_top(count):
    outlines = Outlines.of(scattered(count), *SIZE)
    masks = np.array([drawn_whole(points) for points in outlines.points]).reshape(-1, *(s // RATIO for s in SIZE))
    expected = np.zeros(masks.shape[1:], int)
    for i in np.argsort(-masks.sum((1, 2)), kind='stable'):
        expected[masks[i] > 0] = i + 1
    assert np.array_equal(outlines.plane(), expected)
    assert outlines.plane().dtype == (np.uint8 if count < 256 else np.int32)


def test_mmyolo_is_wrong_from_128_objects_and_fails_from_256():
    """Why there is a step of our own: eight bits are too few for its sums, where objects overlap."""

    def share_of_pixels_that_agree(count):
        outlines = Outlines.of(scattered(count), *SIZE)
        theirs, order = Polygon2Mask().polygons2masks_overlap(SIZE, PolygonMasks(outlines.masks, *SIZE))
        plane = outlines.plane()
        numbers = np.concatenate([[0], order + 1])  # theirs are by area
        return (numbers[theirs] == plane).mean()

    assert share_of_pixels_that_agree(60) > 0.99  # objects of one area are in any order
    assert share_of_pixels_that_agree(250) < 0.9
    with pytest.raises(OverflowError):
        share_of_pixels_that_agree(300)


@pytest.mark.parametrize('seed', range(20))
def test_visible_box_is_that_of_what_is_inside(seed):
    """Against the pixels of an image that is large enough for the whole polygon, at 16 times the resolution."""
    rng = np.random.default_rng(seed)
    width, height, fine, around = 20, 16, 16, 30
    polygon = star(rng.uniform((-8, -8), (28, 24)), rng.uniform(4, 20), seed=seed)
    canvas = np.zeros(((height + 2 * around) * fine, (width + 2 * around) * fine), np.uint8)
    cv2.fillPoly(canvas, [np.round((polygon + around) * fine).astype(np.int32)], 1)
    inside = canvas[around * fine : (around + height) * fine + 1, around * fine : (around + width) * fine + 1]
    rows, columns = np.nonzero(inside)
    found = visible_box(polygon, width, height)
    if not len(rows):
        assert not found.any() or (found[2:] - found[:2]).min() < 0.2
        return
    expected = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / fine
    assert np.abs(found - expected).max() < 0.2


def test_outlines_move_as_their_boxes():
    outlines = Outlines.of(scattered(5), *SIZE)
    boxes = outlines.boxes()
    right = outlines.translate((200, 300), 10)
    assert np.allclose(right.boxes(), boxes + np.array([10, 0, 10, 0]))
    assert (right.height, right.width) == (200, 300)
    assert np.allclose(outlines.translate(SIZE, 7, 'vertical').boxes(), boxes + np.array([0, 7, 0, 7]))
    assert np.allclose(outlines.resize((80, 448)).boxes(), boxes * (2, 0.5, 2, 0.5), atol=1e-3)
    flipped = outlines.flip('diagonal').boxes()
    assert np.allclose(flipped[:, :2], np.array(SIZE[::-1]) - boxes[:, 2:], atol=1e-4)
    assert np.allclose(outlines.flip().flip().points, outlines.points, atol=1e-4)
    assert len(outlines[np.array([True, False, True, False, False])]) == 2
    assert len(outlines[3]) == 1
    with pytest.raises(NotImplementedError, match='LongSideResize'):
        outlines.rescale(2)


@pytest.mark.parametrize('none', [{}, dict(segmentation=[]), dict(segmentation=[[1, 1, 9, 9]])])
def test_a_file_without_outlines_is_refused(digits, tmp_path, none):
    content = json.loads((digits / 'annotations/val.json').read_text())
    content['annotations'] = [
        {key: value for key, value in each.items() if key != 'segmentation'} | none for each in content['annotations']
    ]
    (tmp_path / 'val.json').write_text(json.dumps(content))
    dataset = CheckedCocoDataset(
        ann_file=str(tmp_path / 'val.json'), data_prefix=dict(img=str(digits / 'val')), outlines=True, lazy_init=True
    )
    with pytest.raises(UserError, match='no object has an outline, which segmentation and copy-paste need'):
        dataset.full_init()


def test_steps_of_mmyolo_take_outlines():
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.registry import TRANSFORMS, init_default_scope

    init_default_scope('mmyolo')
    outlines = Outlines.of([star((60, 70), 30), star((150, 100), 20, seed=1)], *SIZE)
    results = dict(
        img=np.zeros((*SIZE, 3), np.uint8),
        img_shape=SIZE,
        gt_bboxes=HorizontalBoxes(torch.from_numpy(outlines.boxes())),
        gt_masks=outlines,
    )
    steps = (dict(type='LongSideResize', scale=(320, 320)), dict(type='LetterResize', scale=(320, 320)))
    for step in (*steps, dict(type='mmdet.RandomFlip', prob=1.0)):
        results = TRANSFORMS.build(step)(results)
    masks = results['gt_masks']
    assert (masks.height, masks.width) == results['img_shape'][:2] == (320, 320)
    assert np.abs(masks.boxes() - results['gt_bboxes'].numpy()).max() < 1e-3


def test_polygons_of_yolo_have_the_precision_of_those_of_coco(digits, tmp_path):
    """The same masks, moved by some pixels, against the same objects in both formats."""
    content = json.loads((digits / 'annotations/val.json').read_text())
    side = content['images'][0]['width']
    lines, masks = defaultdict(list), defaultdict(list)
    rng = np.random.default_rng(0)
    for row in content['annotations']:
        (part,) = row['segmentation']
        lines[row['image_id']].append(f'{row["category_id"]} ' + ' '.join(repr(v / side) for v in part))
        whole = np.zeros((side, side), np.uint8)
        cv2.fillPoly(whole, [np.reshape(part, (-1, 2)).astype(np.int32)], 1)
        masks[row['image_id']].append(
            (np.roll(whole, rng.integers(-3, 4, 2), (0, 1)), row['category_id'], rng.random())
        )
    (tmp_path / 'images').symlink_to(digits / 'val')
    (tmp_path / 'labels').mkdir()
    for image in content['images']:
        (tmp_path / 'labels' / image['file_name']).with_suffix('.txt').write_text('\n'.join(lines[image['id']]))
    names = [c['name'] for c in content['categories']]
    (tmp_path / 'data.yaml').write_text(f'path: {tmp_path}\ntrain: images\nval: images\nnames: {json.dumps(names)}\n')

    def precision(source):
        dataset = build_quietly(find_data(source).splits['val'], pipeline=[], test_mode=True, outlines=True)
        metric = DatasetCocoMetric(metric=['bbox', 'segm'], proposal_nums=(100, 1, 10))
        metric.dataset_meta = dataset.metainfo
        ids = {image['file_name']: image['id'] for image in content['images']}
        for info in dataset:
            found = masks[ids[Path(info['img_path']).name]]
            planes = np.array([mask for mask, _, _ in found], bool).reshape(-1, side, side)
            places = [np.argwhere(plane) for plane in planes]
            boxes = [[*low[::-1], *(high[::-1] + 1)] for low, high in ((p.min(0), p.max(0)) for p in places)]
            instances = dict(
                masks=torch.from_numpy(planes),
                bboxes=torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
                labels=torch.tensor([label for _, label, _ in found], dtype=torch.long),
                scores=torch.tensor([score for _, _, score in found]),
            )
            metric.process({}, [dict(img_id=info['img_id'], ori_shape=(side, side), pred_instances=instances)])
        return metric.evaluate(len(dataset))

    init_default_scope('mmyolo')
    first, second = precision(digits), precision(tmp_path / 'data.yaml')
    assert 0.1 < first['coco/segm_mAP'] < 0.9
    assert second['coco/segm_mAP'] == first['coco/segm_mAP']
    assert second['coco/segm_mAP_50'] == first['coco/segm_mAP_50']
