"""Loading of polygons and run-length codes, masks, and copies that are pasted."""

import json

import cv2
import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from mmdet.structures.bbox import HorizontalBoxes

from mmdyn.datasets import CopyPaste, DrawMasks, LoadOutlines
from mmdyn.datasets.outlines import Outlines, parts_of
from mmdyn.errors import UserError


def blob(height=40, width=60):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - 20) ** 2 / 150 + (columns - 30) ** 2 / 400 < 1).astype(np.uint8)


NOTHING = coco_mask.encode(np.zeros((40, 60), np.uint8, order='F'))


def load(*masks, **extra):
    instances = [dict(ignore_flag=0, bbox=[1, 2, 11, 12], bbox_label=i, mask=m) for i, m in enumerate(masks)]
    return LoadOutlines()(dict(instances=instances, ori_shape=(40, 60), img_path='a.jpg', **extra))


@pytest.mark.parametrize('compressed', [True, False])
def test_run_length_codes_become_the_same_pixels(compressed):
    code = coco_mask.encode(np.asfortranarray(blob()))
    code = dict(size=list(code['size']), counts=code['counts'].decode())
    if not compressed:
        flat = blob().ravel(order='F')
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
        counts = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
        code = json.loads(json.dumps(dict(size=[40, 60], counts=counts)))
    [part] = parts_of(code, 40, 60)
    assert np.array_equal(cv2.fillPoly(np.zeros((40, 60), np.uint8), [part.astype(np.int32)], 1), blob())
    assert load(code)['gt_masks'].boxes().tolist() == [[*part.min(0), *part.max(0)]]


def test_parts_are_joined_and_an_empty_mask_is_its_box():
    left, right = [2, 2, 9, 2, 9, 9, 2, 9], [20, 3, 30, 3, 30, 20, 20, 20]
    results = load([left, right], NOTHING, [[1, 1, 2]])
    assert results['gt_masks'].boxes().tolist() == [[2, 2, 30, 20], [1, 2, 11, 12], [1, 2, 11, 12]]
    assert results['gt_bboxes_labels'].tolist() == [0, 1, 2]


def test_objects_that_are_ignored_have_no_outline():
    crowd = dict(ignore_flag=1, bbox=[0, 0, 9, 9], bbox_label=0, mask=NOTHING)
    one = dict(ignore_flag=0, bbox=[1, 1, 9, 9], bbox_label=3, mask=[[1, 1, 9, 1, 9, 9]])
    results = LoadOutlines()(dict(instances=[crowd, one], ori_shape=(40, 60)))
    assert len(results['gt_masks']) == len(results['gt_bboxes']) == 1


def test_a_code_of_another_size_is_refused():
    with pytest.raises(UserError, match=r'b\.png: a mask of 60 x 40 pixels in an image of 40 x 60'):
        parts_of(NOTHING, 60, 40, 'b.png')


def test_drawn_masks_replace_outlines():
    results = DrawMasks()(load([[0, 0, 30, 0, 30, 20, 0, 20]]))
    assert 'gt_masks' not in results
    assert results['gt_planes'].shape == (10, 15)
    assert results['gt_planes'].sum() == 5 * 8


def squares(*corners, size=64):
    """An image of squares of their own grey, with boxes and outlines."""
    image = np.zeros((size, size, 3), np.uint8)
    boxes = np.array([[x, y, x + s, y + s] for x, y, s in corners], np.float32).reshape(-1, 4)
    for i, (x, y, s) in enumerate(corners):
        image[y : y + s, x : x + s] = 50 + i
    polygons = [np.array([[a, b], [c, b], [c, d], [a, d]]) for a, b, c, d in boxes]
    return dict(
        img=image,
        gt_bboxes=HorizontalBoxes(torch.from_numpy(boxes)),
        gt_masks=Outlines.of(polygons, size, size),
        gt_bboxes_labels=np.arange(len(corners)),
        gt_ignore_flags=np.zeros(len(corners), bool),
    )


def test_copies_that_cover_least_are_pasted_first():
    # the first one's copy covers 1/5 of the second, the third one's copy covers nothing, the last one's covers itself
    before = squares((4, 4, 10), (42, 4, 10), (4, 30, 10), (27, 50, 10))
    half = CopyPaste(0.5)(dict(before))
    assert half['gt_bboxes_labels'].tolist() == [0, 1, 2, 3, 2, 0] or half['gt_bboxes_labels'].tolist() == [
        0,
        1,
        2,
        3,
        2,
        1,
    ]
    assert half['gt_bboxes'].numpy()[4].tolist() == [50, 30, 60, 40]
    assert (half['img'][31:39, 51:59] == 52).all()
    assert len(half['gt_masks']) == len(half['gt_bboxes']) == len(half['gt_ignore_flags']) == 6
    assert np.allclose(half['gt_masks'].boxes(), half['gt_bboxes'].numpy())
    everything = CopyPaste(1.0)(dict(before))
    assert sorted(everything['gt_bboxes_labels'].tolist()) == [0, 0, 1, 1, 2, 2, 3]
    assert (before['img'][31:39, 51:59] == 0).all()  # the image of before is as it was


@pytest.mark.parametrize('prob', [0.0, 0.3])
def test_nothing_is_pasted_where_nothing_is_there(prob):
    before = squares()
    assert CopyPaste(prob)(dict(before)).keys() == before.keys()


def test_an_invalid_share_is_refused():
    with pytest.raises(ValueError, match='prob must be from 0 to 1, got 1.5'):
        CopyPaste(1.5)
