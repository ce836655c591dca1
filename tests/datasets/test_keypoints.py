"""Keypoints of data sets: read, carried through the pipeline with their boxes, mirrored; and what is refused."""

import json

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import TRANSFORMS, init_default_scope
from mmyolo.registry import DATASETS

from mmdyn.annotations.coco import read_coco
from mmdyn.datasets import CheckedCocoDataset, Keypoints, YOLOTextDataset, find_data
from mmdyn.datasets.keypoints import mirrored
from mmdyn.errors import UserError
from mmdyn.running import load_config

PAIRS = ('eye', 'ear', 'shoulder', 'elbow')
COCO_NAMES = ['nose', *(f'{side}_{part}' for part in PAIRS for side in ('left', 'right'))]


@pytest.fixture(autouse=True)
def scope(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'cache'))
    init_default_scope('mmyolo')


def points(count=2):
    """Keypoints at the corners and in the middle of boxes."""
    boxes = torch.tensor([[10.0, 20, 40, 60], [50, 5, 90, 35]])[:count]
    _, top, right, _ = boxes.unbind(1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    places = torch.stack([boxes[:, :2], torch.stack([right, top], 1), boxes[:, 2:], middle], 1)
    return boxes, Keypoints(places, torch.full((count, 4), 2.0), flip_indices=[1, 0, 2, 3])


def results(count=2):
    boxes, places = points(count)
    return dict(
        img=np.zeros((80, 100, 3), np.uint8),
        img_shape=(80, 100),
        gt_bboxes=HorizontalBoxes(boxes),
        gt_keypoints=places,
        gt_bboxes_labels=np.arange(count),
        gt_ignore_flags=np.zeros(count, bool),
    )


def assert_with_boxes(after):
    """The first keypoint is a corner of its box, the third one the opposite, the fourth one in the middle."""
    boxes, places = after['gt_bboxes'].tensor, after['gt_keypoints'].keypoints
    assert torch.allclose(places[:, 0], boxes[:, :2], atol=1e-3)
    assert torch.allclose(places[:, 2], boxes[:, 2:], atol=1e-3)
    assert torch.allclose(places[:, 3], (boxes[:, :2] + boxes[:, 2:]) / 2, atol=1e-3)


@pytest.mark.parametrize(
    'steps',
    [
        [dict(type='LongSideResize', scale=(250, 250))],
        [dict(type='LongSideResize', scale=(250, 250)), dict(type='LetterBox', scale=(256, 256))],
        [dict(type='YOLO11RandomAffine', max_rotate_degree=0, max_shear_degree=0, scaling_ratio_range=(0.6, 0.6))],
    ],
    ids=['resize', 'letterbox', 'affine'],
)
def test_steps_move_them_with_their_boxes(steps):
    after = results()
    for step in steps:
        after = TRANSFORMS.build(step)(after)
    assert len(after['gt_bboxes']) == 2
    assert_with_boxes(after)


def test_a_mosaic_moves_them_with_their_boxes():
    dataset = [results() | dict(img_id=i) for i in range(4)]
    mosaic = TRANSFORMS.build(dict(type='BufferedMosaic', img_scale=(128, 128), pre_transform=[], buffer_size=4))
    mosaic.bbox_clip_border = False
    for each in dataset:
        mosaic.buffer.append({k: v for k, v in mosaic.resize(each).items()})
    after = mosaic(results())
    inside = (after['gt_keypoints'].keypoints_visible > 0).all(1)
    boxes, places = after['gt_bboxes'].tensor[inside], after['gt_keypoints'].keypoints[inside]
    assert inside.any()
    assert torch.allclose(places[:, 0], boxes[:, :2], atol=1e-3)


def test_mixup_joins_them():
    other = results(1)
    mix = TRANSFORMS.build(dict(type='YOLO11MixUp', pre_transform=[], prob=1.0))
    after = mix.mix_img_transform(results() | dict(mix_results=[other]))
    assert len(after['gt_keypoints'].keypoints) == len(after['gt_bboxes']) == 3


def test_points_outside_are_not_labelled_and_objects_stay():
    after = results()
    after['gt_keypoints'].keypoints[0, 1] = torch.tensor([120.0, -9])
    after = TRANSFORMS.build(
        dict(
            type='YOLO11RandomAffine',
            max_rotate_degree=0,
            max_shear_degree=0,
            max_translate_ratio=0,
            scaling_ratio_range=(1, 1),
        )
    )(after)
    assert len(after['gt_bboxes']) == 2
    assert after['gt_keypoints'].keypoints_visible[0].tolist() == [2, 0, 2, 2]
    assert after['gt_keypoints'].keypoints[0, 1].tolist() == [100, 0]


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_a_mirrored_image_swaps_them(direction):
    after = TRANSFORMS.build(dict(type='KeypointFlip', prob=1.0, direction=direction))(results())
    before, places = points()[1].keypoints, after['gt_keypoints'].keypoints
    axis, size = (0, 100) if direction == 'horizontal' else (1, 80)
    expected = before.clone()
    expected[..., axis] = size - expected[..., axis]
    assert torch.equal(places, expected[:, [1, 0, 2, 3]])


def test_nothing_is_mirrored_without_indices():
    before = results()
    before['gt_keypoints'].flip_indices = None
    after = TRANSFORMS.build(dict(type='KeypointFlip', prob=1.0))(before)
    assert torch.equal(after['gt_bboxes'].tensor, points()[0])
    assert not after['flip']


def test_names_say_what_is_mirrored():
    assert mirrored(COCO_NAMES) == [0, 2, 1, 4, 3, 6, 5, 8, 7]
    assert mirrored(['a', 'b']) is None
    assert mirrored(()) is None


def coco(folder, keypoints=((1, 2, 2, 3, 4, 1), (0, 0, 0, 0, 0, 0), ()), names=('left', 'right')):
    """An annotation file of one image, with an object for each list of keypoints."""
    import cv2

    cv2.imwrite(str(folder / 'a.png'), np.zeros((40, 60, 3), np.uint8))
    content = dict(
        images=[dict(id=1, file_name='a.png', width=60, height=40)],
        annotations=[
            dict(id=i, image_id=1, category_id=1, bbox=[5, 5, 20, 20], **(dict(keypoints=list(k)) if k else {}))
            for i, k in enumerate(keypoints, 1)
        ],
        categories=[dict(id=1, name='cat', **(dict(keypoints=list(names), skeleton=[[1, 2]]) if names else {}))],
    )
    (folder / 'train.json').write_text(json.dumps(content))
    return dict(data_root=str(folder), ann_file='train.json', data_prefix=dict(img=''))


def test_coco_keypoints_are_read(tmp_path):
    dataset = CheckedCocoDataset(keypoints=(2, 3), **coco(tmp_path))
    assert len(dataset.annotations.boxes) == 3  # all are evaluated
    [instance] = dataset[0]['instances']  # one has a labelled keypoint
    assert instance['keypoints'] == [[1, 2, 2], [3, 4, 1]]
    assert dataset.metainfo['flip_indices'] == [1, 0]
    assert dataset.annotations.as_coco(keypoints=True)['annotations'][0]['num_keypoints'] == 2
    table = read_coco(tmp_path / 'train.json', keypoints=True)
    assert (table.keypoint_names, table.skeleton) == (('left', 'right'), ((1, 2),))


@pytest.mark.parametrize(
    ('arguments', 'settings', 'message'),
    [
        (dict(keypoints=((), ()), names=()), {}, 'no object has a keypoint'),
        ({}, dict(keypoints=(3, 3)), r'has 2 keypoints, but keypoints=\(3, 3\) is set'),
        ({}, dict(metainfo=dict(flip_indices=[0, 0])), r'flip_idx \[0, 0\] must have each of the numbers 0 to 1'),
        (dict(keypoints=((1, 2, 2), (1, 2, 2, 3, 4, 1)), names=()), {}, 'objects have 3 and 6 numbers of keypoints'),
    ],
    ids=['none', 'another count', 'no permutation', 'two counts'],
)
def test_keypoints_that_are_refused(tmp_path, arguments, settings, message):
    with pytest.raises(UserError, match=message):
        len(CheckedCocoDataset(**dict(keypoints=(2, 3)) | coco(tmp_path, **arguments) | settings))


def test_yolo_labels_of_two_and_three_numbers_are_the_same_objects(tmp_path):
    import cv2

    found = []
    for numbers, line in ((3, '0 .5 .5 .5 .5 .25 .25 2 .75 .75 1'), (2, '0 .5 .5 .5 .5 .25 .25 .75 .75')):
        root = tmp_path / str(numbers)
        for name in ('images', 'labels'):
            (root / name).mkdir(parents=True)
        cv2.imwrite(str(root / 'images/a.png'), np.zeros((40, 60, 3), np.uint8))
        (root / 'labels/a.txt').write_text(line)
        (root / 'data.yaml').write_text(
            f'train: images\nval: images\nnames: [cat]\nkpt_shape: [2, {numbers}]\nflip_idx: [1, 0]\n'
            'kpt_oks_sigmas: [0.1, 0.2]\n'
        )
        dataset = DATASETS.build(find_data(root / 'data.yaml', 'keypoints').splits['train'])
        assert isinstance(dataset, YOLOTextDataset)
        assert dataset.metainfo['flip_indices'] == [1, 0]
        assert dataset.metainfo['sigmas'] == [0.1, 0.2]
        found.append(dataset[0]['instances'][0]['keypoints'])
    assert found == [[[15, 10, 2], [45, 30, 1]], [[15, 10, 2], [45, 30, 2]]]


def test_a_config_takes_the_keypoints_of_the_data(tmp_path, capsys):
    from mmdyn.running.common_options import set_common_options

    (tmp_path / 'annotations').mkdir()
    coco(tmp_path)
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        (tmp_path / split / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes())
        for kind in ('instances', 'person_keypoints'):
            target = tmp_path / f'annotations/{kind}_{split}2017.json'
            target.write_text((tmp_path / 'train.json').read_text())
    (tmp_path / 'train.json').unlink()
    cfg = load_config('pose/yolo11n_coco')
    set_common_options(cfg, data=tmp_path)
    assert cfg.model.bbox_head.head_module.keypoint_shape == (2, 3)
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/person_keypoints_train2017.json'
    assert [list(pair) for pair in cfg.model.bbox_head.skeleton] == [[1, 2]]
    item = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert item['data_samples'].gt_instances.keypoints.shape[1:] == (2, 2)
    for file in (tmp_path / 'annotations').glob('*.json'):
        content = json.loads(file.read_text())
        content['categories'][0]['skeleton'] = [[0, 1]]
        file.write_text(json.dumps(content))
    cfg = load_config('pose/yolo11n_coco')
    set_common_options(cfg, data=tmp_path)
    assert not cfg.model.bbox_head.skeleton
    assert 'its skeleton is not drawn, as its numbers are not those of keypoints, 1 to 2' in capsys.readouterr().out
    for file in (tmp_path / 'annotations').glob('*.json'):
        content = json.loads(file.read_text())
        for each in (*content['annotations'], *content['categories']):
            each.pop('keypoints', None)
        file.write_text(json.dumps(content))
    with pytest.raises(UserError, match='has no keypoints, which a model of poses needs'):
        set_common_options(load_config('pose/yolo11n_coco'), data=tmp_path)
