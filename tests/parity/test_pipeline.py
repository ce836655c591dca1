"""Photographs through everything: reading, letterbox, colours, network, decoding, NMS, and back to the photograph."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import original
from mmdyn.models.oriented import prob_iou
from mmdyn.running import load_config
from mmdyn.running.dataset_images import build_quietly

pytestmark = pytest.mark.parity

NAMES = ['one', 'two', 'three', 'four', 'five']
NMS = 0.7  # overlap from which on a box is dropped


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    """Crops of odd sizes: upright, wide, larger than the network's input, and smaller. COCO format, one box each."""
    root = tmp_path_factory.mktemp('photographs')
    bus, zidane = (cv2.imread(str(path)) for path in original.PHOTOS)
    crops = [bus, zidane[:613, 37:1050], bus[101:728, :797], zidane[50:249, 700:1001], bus[:1079, :801]]
    content = dict(images=[], annotations=[], categories=[dict(id=i + 1, name=n) for i, n in enumerate(NAMES)])
    for i, crop in enumerate(crops):
        height, width = crop.shape[:2]
        cv2.imwrite(str(root / f'{i}.png'), crop)
        content['images'].append(dict(id=i, file_name=f'{i}.png', height=height, width=width))
        box = [10.0, 20.0, width / 2, height / 3]
        content['annotations'].append(
            dict(id=i + 1, image_id=i, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
        )
    (root / 'val.json').write_text(json.dumps(content))
    return root


def assert_same_detections(ours, theirs, floor):
    """Every box of one is in the other: half a pixel, same class, a thousandth in score; from ``floor`` on.

    A box may be missing, one of a hundred, where another of its class overlaps it by about NMS's threshold (these boxes
    are clipped, those of NMS are not): whether it is dropped then hangs on a rounding, and CPUs round differently.
    """
    for some, others in ((ours, theirs), (theirs, ours)):
        boxes, scores, labels = others
        counted = missing = 0
        for box, score, label in zip(*some, strict=True):
            if score < floor:
                continue
            counted += 1
            apart = np.where(labels == label, np.abs(boxes - box).max(1), np.inf)
            near = apart < 0.5
            if not near.any():
                overlaps = box_iou(torch.tensor(box)[None], torch.tensor(boxes[labels == label], dtype=torch.float))
                assert (overlaps - NMS).abs().min() < 0.02, (box, score, label, apart.min())
                missing += 1
                continue
            assert np.abs(scores[near] - score).min() < 1e-3, (box, score, label)
        assert counted > 5
        assert missing <= max(1, counted // 100)


@pytest.mark.parametrize(
    ('variant', 'rectangles'), [('static', False), *((variant, True) for variant in original.VARIANTS)]
)
def test_validation(pair, photographs, run, tmp_path, variant, rectangles):
    _, _, cfg, file, checkpoint = pair('n', variant, len(NAMES), NAMES)
    yaml = original.yolo_dataset(tmp_path / 'set', {'val': (photographs / 'val.json', photographs)})
    yaml.write_text(yaml.read_text() + 'train: images/val\n')
    original.validate(file, yaml, tmp_path / 'theirs', imgsz=640, batch=2, rect=rectangles)
    theirs: dict = {i: [] for i in range(5)}
    for p in json.loads((tmp_path / 'theirs/predictions.json').read_text()):
        x, y, w, h = p['bbox']
        theirs[int(p['image_id'])].append(([x, y, x + w, y + h], p['score'], p['category_id'] - 1))

    data = dict(data_root=str(photographs), ann_file='val.json', data_prefix=dict(img=''))
    cfg.test_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.update(data)
    # rectangles by batch, as the original has them
    shapes = dict(cfg.rectangles, type='BatchShapePolicy', batch_size=2) if rectangles else None
    cfg.test_dataloader.update(batch_sampler=None)
    cfg.test_dataloader.dataset.batch_shapes_cfg = shapes
    cfg.dump(tmp_path / 'config.py')
    done = run(
        'tools/test.py', tmp_path / 'config.py', checkpoint, '--out', tmp_path / 'ours.pkl', '--work-dir', tmp_path
    )
    assert done.returncode == 0, done.stderr
    for result in pickle.loads((tmp_path / 'ours.pkl').read_bytes()):
        found = result['pred_instances']
        boxes, scores, labels = zip(*theirs[result['img_id']], strict=True)
        # Both keep 300 boxes at most, and which is the last of them may hang on a rounding.
        floor = max(min(scores), found['scores'].min().item()) + 1e-3 if len(scores) == 300 else 2e-3
        assert_same_detections(
            (found['bboxes'].numpy(), found['scores'].numpy(), found['labels'].numpy()),
            tuple(map(np.array, (boxes, scores, labels))),
            floor,
        )


def test_inference(pair):
    """``DetInferencer`` here, ``predict`` there: one class a box, from a score of 0.25 on."""
    from mmdet.apis import DetInferencer
    from ultralytics import YOLO

    _, _, cfg, file, checkpoint = pair('n', 'dynconv', len(NAMES), NAMES)
    cfg.model.test_cfg.update(multi_label=False, score_thr=0.25)
    cfg.visualizer.vis_backends = None
    inferencer = DetInferencer(cfg, str(checkpoint), 'cpu', scope='mmyolo', palette='random', show_progress=False)
    assert inferencer.model.dataset_meta['classes'] == tuple(NAMES)
    model = YOLO(file)
    for photo in original.PHOTOS:
        expected = model.predict(str(photo), imgsz=640, rect=False, conf=0.25, iou=0.7, device='cpu')[0].boxes
        found = inferencer(str(photo))['predictions'][0]
        assert_same_detections(
            tuple(np.array(found[key]) for key in ('bboxes', 'scores', 'labels')),
            (expected.xyxy.numpy(), expected.conf.numpy(), expected.cls.numpy()),
            floor=0.25 + 1e-3,
        )


def test_colours_and_padding_arrive_as_in_the_original(pair, photographs):
    """The tensor that enters the network, pixel by pixel."""
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import init_default_scope
    from ultralytics.data.augment import LetterBox

    _, ours, cfg, *_ = pair('n', 'static', len(NAMES), NAMES)
    init_default_scope('mmyolo')
    pipeline = Compose([step for step in cfg.test_pipeline if step['type'] != 'LoadAnnotations'])
    path = str(photographs / '0.png')
    item = pipeline(dict(img_path=path, img_id=0))
    inputs = ours.data_preprocessor(pseudo_collate([item]))['inputs'][0]
    boxed = LetterBox((640, 640), auto=False)(image=cv2.imread(path))
    expected = torch.from_numpy(boxed[..., ::-1].copy()).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(inputs, expected, atol=1e-6, rtol=0)


def training_images(files, folder, config, task):
    """Images without mosaic, and with every random change at nothing, of the original and here."""
    from mmengine.registry import init_default_scope
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    yaml = original.yolo_dataset(folder / 'set', {'train': files, 'val': files}, task)
    none = dict.fromkeys(('scale', 'translate', 'hsv_h', 'hsv_s', 'hsv_v', 'fliplr'), 0.0)
    args = get_cfg(overrides=dict(model='yolo11n.yaml', data=str(yaml), mode='train', imgsz=320, task=task, **none))
    data = check_det_dataset(str(yaml))
    theirs = build_yolo_dataset(args, data['train'], 2, data, mode='train', rect=False, stride=32)
    theirs.close_mosaic(args)

    cfg = load_config(config)
    changes = dict(scaling_ratio_range=(1, 1), max_translate_ratio=0.0, prob=0.0)
    pipeline = [
        {key: changes.get(key, value) for key, value in step.items()}
        for step in cfg.last_epochs_pipeline
        if step.type != 'YOLO11HSVRandomAug'  # which the original leaves out if it is to change nothing
    ]
    init_default_scope('mmyolo')
    file, images = files
    ours = build_quietly(
        cfg.train_dataloader.dataset,
        pipeline=pipeline,
        data_root=str(images),
        ann_file=str(file),
        data_prefix=dict(img=''),
    )
    assert len(ours) == len(theirs)
    return zip(ours, theirs, strict=True)


def normalised(boxes):
    """Corners in pixels of an image of 320 px to centre and size as shares of it."""
    return torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1) / 320


def test_training_images_of_the_last_epochs(photographs, tmp_path):
    for here, there in training_images((photographs / 'val.json', photographs), tmp_path, 'yolo11n_bccd', 'detect'):
        torch.testing.assert_close(here['inputs'].flip(0), there['img'], rtol=0, atol=0)
        boxes = here['data_samples'].gt_instances.bboxes.tensor
        torch.testing.assert_close(normalised(boxes), there['bboxes'], rtol=0, atol=1e-4)


def test_training_images_with_masks(digits, tmp_path):
    """The original puts objects of larger masks first; here they keep their order."""
    files = digits / 'annotations/train.json', digits / 'train'
    numbers = 0
    for here, there in training_images(files, tmp_path, 'segment/yolo11n_digits', 'segment'):
        torch.testing.assert_close(here['inputs'].flip(0), there['img'], rtol=0, atol=0)
        instances = here['data_samples'].gt_instances
        found = normalised(instances.bboxes.tensor)
        assert len(found) == len(there['bboxes'])
        if not len(found):
            assert not here['data_samples'].gt_planes.planes.any()
            continue
        order = torch.cdist(there['bboxes'].double(), found.double()).argmin(1)
        assert sorted(order.tolist()) == list(range(len(found)))
        torch.testing.assert_close(found[order], there['bboxes'], rtol=0, atol=0.5 / 320)
        assert instances.labels[order].tolist() == there['cls'].ravel().tolist()
        plane = here['data_samples'].gt_planes.planes[0].long()
        [expected] = there['masks']
        assert torch.equal(torch.cat([torch.zeros(1, dtype=torch.long), order + 1])[expected.long()], plane)
        numbers += len(found)
    assert numbers > 50


def test_training_images_with_keypoints(digits, tmp_path):
    files = digits / 'annotations/train.json', digits / 'train'
    for here, there in training_images(files, tmp_path, 'pose/yolo11n_digits', 'pose'):
        torch.testing.assert_close(here['inputs'].flip(0), there['img'], rtol=0, atol=0)
        instances = here['data_samples'].gt_instances
        torch.testing.assert_close(normalised(instances.bboxes.tensor), there['bboxes'], rtol=0, atol=1e-4)
        assert instances.labels.tolist() == there['cls'].ravel().tolist()
        points, seen = instances.keypoints / 320, instances.keypoints_visible
        expected = there['keypoints']
        assert torch.equal(seen, expected[..., 2])
        torch.testing.assert_close(points[seen > 0], expected[..., :2][seen > 0], rtol=0, atol=0.5 / 320)


def test_training_images_with_oriented_boxes(digits, tmp_path):
    """The original takes the outlines of the digits, too, and makes the smallest rectangles around them in the end."""
    files = digits / 'annotations/train.json', digits / 'train'
    numbers = 0
    for here, there in training_images(files, tmp_path, 'obb/yolo11n_digits', 'obb'):
        torch.testing.assert_close(here['inputs'].flip(0), there['img'], rtol=0, atol=0)
        instances = here['data_samples'].gt_instances
        assert instances.labels.tolist() == there['cls'].ravel().tolist()
        found, expected = (
            instances.oriented_boxes,
            there['bboxes'].reshape(-1, 5) * torch.tensor([320, 320, 320, 320, 1.0]),
        )
        torch.testing.assert_close(found[:, :2], expected[:, :2], rtol=0, atol=0.5)
        if len(found):
            assert prob_iou(found, expected).min() > 0.95
        numbers += len(found)
    assert numbers > 50
