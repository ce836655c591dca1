"""Digits, checks of annotations, and the VOC converter, on real files."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope

from conftest import ROOT
from mmdyn.annotations import Annotations, read_coco
from mmdyn.annotations.image_files import look_at_images
from mmdyn.datasets import ArrayDataset, CheckedCocoDataset, convert_voc, make_digits
from mmdyn.datasets.digits import _split_materials, make_image
from mmdyn.errors import UserError
from mmdyn.metrics import DatasetCocoMetric


def digest(folder) -> str:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return hashlib.sha256(b''.join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def test_digits_are_the_same_for_a_seed_and_others_for_another(tmp_path, digits):
    splits = {'train': 24, 'val': 8}
    assert digest(make_digits(tmp_path / 'a', 0, splits)) == digest(digits)
    assert digest(make_digits(tmp_path / 'b', 1, splits)) != digest(digits)


def test_digits_of_validation_are_never_trained_on():
    materials = _split_materials(0)
    train, val = ({d.tobytes() for d in materials[s].digits} for s in ('train', 'val'))
    assert not train & val
    assert len(materials['train'].digits) + len(materials['val'].digits) == 1797
    assert set(materials['val'].labels) == set(range(10))
    left, right = materials['train'].photos[0], materials['val'].photos[0]
    assert left.shape[1] + right.shape[1] == 640  # each split has its own part of the photographs


def test_digits_are_hard_enough_and_in_bounds():
    material, rng = _split_materials(0)['train'], np.random.default_rng(0)
    boxes = np.array([digit.box for _ in range(150) for digit in make_image(material, rng)[1]])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 320).all()
    longest = boxes[:, 2:].max(1)
    assert longest.min() < 16
    assert longest.max() > 90
    counts = [len(make_image(material, rng)[1]) for _ in range(60)]
    assert min(counts) == 0  # some images are empty
    assert max(counts) >= 8


def test_digits_are_all_or_nothing(tmp_path, monkeypatch):
    from mmdyn.datasets import digits as module

    def fail(*args):
        raise OSError('disk')

    monkeypatch.setattr(module, '_write_split', fail)
    with pytest.raises(OSError, match='disk'):
        make_digits(tmp_path / 'digits')
    assert list(tmp_path.iterdir()) == []


def test_digits_are_made_in_an_empty_folder(tmp_path):
    make_digits(tmp_path, 0, {'train': 1, 'val': 1})
    assert (tmp_path / 'annotations/val.json').is_file()


def test_digits_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / 'mark').write_text('mine')
    make_digits(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['mark']


@pytest.fixture
def coco(tmp_path):
    """A sound data set of two images; returns its content and a function that writes it and builds the data set."""
    for name in ('a.jpg', 'b.png'):
        cv2.imwrite(str(tmp_path / name), np.full((40, 60, 3), 128, np.uint8))
    content = dict(
        images=[dict(id=i, file_name=n, width=60, height=40) for i, n in ((1, 'a.jpg'), (2, 'b.png'))],
        annotations=[
            dict(id=1, image_id=1, category_id=5, bbox=[5, 5, 20, 20], area=400, iscrowd=0),
            dict(id=2, image_id=2, category_id=3, bbox=[0, 0, 10, 10], area=100, iscrowd=0),
        ],
        categories=[dict(id=5, name='cat'), dict(id=3, name='dog')],
    )

    def build(text=None, **kwargs):
        (tmp_path / 'ann.json').write_text(json.dumps(content) if text is None else text)
        return CheckedCocoDataset(ann_file='ann.json', data_root=str(tmp_path), data_prefix=dict(img=''), **kwargs)

    return content, build


def test_classes_come_from_the_file_in_its_order(coco):
    _, build = coco
    dataset = build()
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert dataset.metainfo['ann_file'].endswith('ann.json')
    assert [dataset[i]['instances'][0]['bbox_label'] for i in range(2)] == [0, 1]


def test_metainfo_chooses_classes(coco):
    _, build = coco
    dataset = build(metainfo=dict(classes=('cat',)))
    assert dataset.metainfo['classes'] == ('cat',)
    assert [len(dataset[i]['instances']) for i in range(2)] == [1, 0]
    with pytest.raises(UserError, match=r"no category 'cow'.*it has \['cat', 'dog'\]"):
        build(metainfo=dict(classes=('cow',)))
    with pytest.raises(UserError, match=r"must be in the order of .*: \('cat', 'dog'\), got \('dog', 'cat'\)"):
        build(metainfo=dict(classes=('dog', 'cat')))


def broken(content, key, index, **changes):
    content[key][index].update(changes)
    return content


BROKEN = [
    pytest.param(lambda c: 'no json {', 'is not JSON', id='not-json'),
    pytest.param(lambda c: '[]', "has no list 'images'", id='not-a-dict'),
    pytest.param(
        lambda c: json.dumps({k: v for k, v in c.items() if k != 'categories'}), "no list 'categories'", id='no-key'
    ),
    pytest.param(lambda c: json.dumps(dict(c, images=[])), 'lists no image', id='no-images'),
    pytest.param(
        lambda c: json.dumps(broken(c, 'annotations', 0, bbox=[1, 2, 3])),
        r'annotation 1 has bbox \[1, 2, 3\], which is not four numbers',
        id='three-numbers',
    ),
    pytest.param(lambda c: json.dumps(broken(c, 'annotations', 0, bbox=None)), 'bbox None', id='no-numbers'),
    pytest.param(
        lambda c: json.dumps(broken(c, 'annotations', 0, bbox=[1, 2, float('nan'), 4])), 'is not JSON', id='nan'
    ),
    pytest.param(
        lambda c: json.dumps(broken(c, 'images', 0, width='60')),
        "width '60', which is not a positive number",
        id='width',
    ),
    pytest.param(
        lambda c: json.dumps(broken(c, 'annotations', 1, id=1)),
        r'1 annotation id\(s\) are used more than once, first 1',
        id='repeated-id',
    ),
    pytest.param(
        lambda c: json.dumps(broken(c, 'annotations', 0, image_id=99)),
        r"1 annotation\(s\) refer to an entry that is not in 'images' \(annotation 1: image_id 99\)",
        id='unknown-image',
    ),
    pytest.param(
        lambda c: json.dumps(broken(c, 'annotations', 1, category_id=7)),
        'annotation 2: category_id 7',
        id='unknown-category',
    ),
    pytest.param(
        lambda c: json.dumps(dict(c, annotations=[dict(id=1, image_id=1, category_id=5)])),
        "annotation number 0 has no 'bbox'",
        id='no-bbox',
    ),
    pytest.param(
        lambda c: json.dumps(broken(c, 'images', 0, file_name='gone.jpg')),
        r"1 bad images \(gone.jpg: missing\). Correct them, or set on_bad_images='skip'",
        id='missing-image',
    ),
    pytest.param(
        lambda c: json.dumps(broken(c, 'images', 1, width=61)),
        'b.png: 60x40 pixels, but the annotations state 61x40',
        id='wrong-size',
    ),
]


@pytest.mark.parametrize(('spoil', 'message'), BROKEN)
def test_a_broken_data_set_is_refused_with_the_reason(coco, spoil, message):
    content, build = coco
    with pytest.raises(UserError, match=message):
        build(spoil(content))


def test_missing_annotation_file_says_where_and_what_next(tmp_path):
    with pytest.raises(UserError, match=rf'no annotation file at {tmp_path}.*cocodataset.org.*digits'):
        read_coco(tmp_path / 'none.json')


@pytest.mark.parametrize(('name', 'cut'), [('a.jpg', 1), ('a.jpg', 100), ('b.png', 100)])
def test_truncated_image_is_named(coco, tmp_path, name, cut):
    _, build = coco
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=rf'1 bad images \({name}: (truncated|damaged or not an image)'):
        build()


def fault(path, width=60, height=40):
    """What is wrong with an image of which annotations state this size."""
    return look_at_images([path], str(path)).faults_for(np.array([[width, height]])).get(0)


def test_image_fault(tmp_path):
    text = tmp_path / 'text.jpg'
    text.write_text('hello')
    assert fault(text).startswith('damaged or not an image')
    assert fault(tmp_path / 'none.jpg') == 'missing'


def test_bytes_after_the_end_of_an_image_are_no_fault(tmp_path):
    path = tmp_path / 'a.jpg'
    cv2.imwrite(str(path), np.full((40, 60, 3), 128, np.uint8))
    path.write_bytes(path.read_bytes() + b'trailer' * 50)
    assert fault(path) is None


def test_truncated_bmp_is_named(tmp_path):
    path = tmp_path / 'a.bmp'
    cv2.imwrite(str(path), np.full((40, 60, 3), 128, np.uint8))
    assert fault(path) is None
    path.write_bytes(path.read_bytes()[:2000])
    assert fault(path) == 'truncated'


def perfect_predictions(dataset):
    for info in dataset:
        boxes = np.array([i['bbox'] for i in info['instances']], dtype=np.float32).reshape(-1, 4)
        pred = dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.ones(len(boxes)),
            labels=torch.tensor([i['bbox_label'] for i in info['instances']], dtype=torch.long),
        )
        yield dict(img_id=info['img_id'], ori_shape=(info['height'], info['width']), pred_instances=pred)


def evaluate(dataset):
    metric = DatasetCocoMetric(metric='bbox')
    metric.dataset_meta = dataset.metainfo
    metric.process({}, list(perfect_predictions(dataset)))
    return metric.evaluate(len(dataset))['coco/bbox_mAP']


def test_annotations_without_area_and_iscrowd_train_and_evaluate(coco):
    content, build = coco
    for annotation in content['annotations']:
        del annotation['area'], annotation['iscrowd']
    dataset = build()
    assert [len(info['instances']) for info in dataset] == [1, 1]
    assert evaluate(dataset) == 1.0


def test_skipped_images_do_not_count_in_the_metric(coco, tmp_path):
    _, build = coco
    assert evaluate(build()) == 1.0
    (tmp_path / 'a.jpg').unlink()
    dataset = build(on_bad_images='skip')
    assert dataset.metainfo['skipped_images'] == [1]
    assert evaluate(dataset) == 1.0


@pytest.mark.parametrize('chosen', [1, [1], -1], ids=str)
def test_images_that_are_left_out_do_not_count_in_the_metric(coco, chosen):
    _, build = coco
    whole = build(test_mode=True)
    for dataset in (build(test_mode=True, indices=chosen), whole.get_subset(chosen)):
        assert len(dataset) == 1
        assert evaluate(dataset) == 1.0
    assert len(whole) == 2
    assert evaluate(whole) == 1.0


def test_bad_images_are_skipped_with_a_count(coco, tmp_path, monkeypatch):
    from mmdyn.datasets import array_dataset

    messages = []
    monkeypatch.setattr(array_dataset, 'print_log', lambda message, **kwargs: messages.append(message))
    _, build = coco
    (tmp_path / 'a.jpg').unlink()
    dataset = build(on_bad_images='skip')
    assert [m for m in messages if '1 bad images (a.jpg: missing): omitted' in m]
    assert len(dataset) == 1
    (tmp_path / 'b.png').unlink()
    with pytest.raises(UserError, match='no usable image'):
        build(on_bad_images='skip')


@pytest.mark.parametrize('box', [[5, 5, 0, 9], [5, 5, 9, 0.5], [70, 0, 5, 5], [-9, 3, 5, 5], [5, 5, -3, 4]], ids=str)
def test_bad_boxes(coco, box):
    content, build = coco
    content['annotations'][0]['bbox'] = box
    assert [len(info['instances']) for info in build()] == [0, 1]
    with pytest.raises(UserError, match="1 bad boxes .a.jpg: box .*on_bad_boxes='skip'"):
        build(on_bad_boxes='error')


@pytest.mark.parametrize(('count', 'more'), [(3, ''), (4, ' and 1 more'), (6, ' and 3 more')])
def test_of_many_faults_three_are_shown(coco, count, more):
    content, build = coco
    content['annotations'] = [dict(id=i, image_id=1, category_id=5, bbox=[5, 5, 0, i]) for i in range(count)]
    shown = '; '.join(rf'a.jpg: box \[5.0, 5.0, 0.0, {i}.0\]' for i in range(3))
    with pytest.raises(UserError, match=rf'{count} bad boxes \({shown}{more}\)'):
        build(on_bad_boxes='error')


def test_filter_that_leaves_nothing_is_refused(coco):
    _, build = coco
    with pytest.raises(UserError, match='no image is left after filter_cfg'):
        build(filter_cfg=dict(min_size=1000))


def test_unknown_reaction_is_refused(coco):
    _, build = coco
    with pytest.raises(ValueError, match="on_bad_images must be 'error' or 'skip', got 'ignore'"):
        build(on_bad_images='ignore')


SIZE = '<size><width>60</width><height>40</height></size>'
VOC = '<annotation><filename>{name}.jpg</filename>' + SIZE + '{objects}</annotation>'
OBJECT = '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'


@pytest.fixture
def voc(tmp_path):
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('one\ntwo\n\n')

    def write(**images):
        for name, objects in images.items():
            text = VOC.format(name=name, objects=''.join(OBJECT.format(*o) for o in objects))
            (tmp_path / 'Annotations' / f'{name}.xml').write_text(text)
        return tmp_path

    return write


def test_voc_boxes_are_clipped_and_dropped_and_counted(voc):
    root = voc(
        one=[('cat', 1, 1, 60, 40), ('dog', 11, 6, 20, 15), ('cat', 50, 30, 70, 50)],
        two=[('dog', 5, 5, 5, 5), ('dog', 9, 9, 3, 20), ('dog', 61, 1, 80, 20)],
    )
    result = convert_voc(root, 'train')
    assert result.classes == ['cat', 'dog']
    assert [a['bbox'] for a in result.content()['annotations']] == [[0, 0, 60, 40], [10, 5, 10, 10], [49, 29, 11, 11]]
    assert [a['category_id'] for a in result.content()['annotations']] == [1, 2, 1]
    assert (result.clipped, result.dropped) == (1, 3)
    assert '1 clipped to their image, 3 dropped' in str(result)
    assert [i['file_name'] for i in result.content()['images']] == ['one.jpg', 'two.jpg']


def test_voc_class_order_can_be_given(voc):
    root = voc(one=[('cat', 1, 1, 9, 9)], two=[])
    assert convert_voc(root, 'train', ['dog', 'cat']).content()['annotations'][0]['category_id'] == 2
    with pytest.raises(UserError, match=r"class 'cat', which is not among \['dog'\]"):
        convert_voc(root, 'train', ['dog'])


def test_voc_faults_are_named(voc, tmp_path):
    root = voc(one=[('cat', 1, 1, 9, 9)], two=[])
    with pytest.raises(UserError, match='no image set at .*val.txt'):
        convert_voc(root, 'val')
    (root / 'Annotations/two.xml').write_text('<annotation>')
    with pytest.raises(UserError, match='two.xml is not XML'):
        convert_voc(root, 'train')
    voc(two=[('cat', 'x', 1, 9, 9)])
    with pytest.raises(UserError, match="<bndbox/xmin> is 'x', not a number"):
        convert_voc(root, 'train')
    (root / 'Annotations/two.xml').unlink()
    with pytest.raises(UserError, match=r'no annotation at .*two.xml'):
        convert_voc(root, 'train')


def test_bccd(tmp_path):
    root = ROOT / 'data/BCCD_Dataset/BCCD'
    if not root.is_dir():
        pytest.skip('BCCD is not here')
    result = convert_voc(root, 'train')
    assert (len(result.images), len(result.annotations), result.dropped) == (205, 2804, 1)
    assert result.classes == ['Platelets', 'RBC', 'WBC']


def test_digits_dataset_makes_itself_but_not_when_only_asked_for_its_meta(tmp_path, monkeypatch):
    from mmdyn.datasets import digits as module

    monkeypatch.setattr(module, 'SPLITS', {'train': 2, 'val': 2})
    monkeypatch.setattr(module.make_digits, '__defaults__', (0, module.SPLITS, module.TURN))
    cfg = dict(
        type='DigitsDataset',
        data_root=str(tmp_path / 'digits'),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
    )
    with DefaultScope.overwrite_default_scope('mmyolo'):
        DATASETS.build(dict(cfg, lazy_init=True))
        assert not (tmp_path / 'digits').exists()
        dataset = DATASETS.build(cfg)
    assert len(dataset) == 2
    assert dataset.metainfo['classes'] == tuple('0123456789')


def test_area_of_zero_is_derived_from_the_box(coco):
    content, build = coco
    for annotation in content['annotations']:
        annotation['area'] = 0
    assert [len(info['instances']) for info in build()] == [1, 1]


@pytest.mark.parametrize('boxes', [[], [[0.1, 0.1, 0.4, 0.4], [0.2, 0.2, 0.5, 0.5]]], ids=['none', 'relative'])
def test_training_set_without_a_single_box_is_refused(coco, boxes):
    content, build = coco
    content['annotations'] = [dict(a, bbox=b) for a, b in zip(content['annotations'], boxes, strict=False)]
    with pytest.raises(UserError, match='no image has a box to train on. Are the boxes in pixels'):
        build(filter_cfg=dict(filter_empty_gt=False))
    assert len(build(test_mode=True)) == 2


def test_sides_may_be_swapped_only_where_exif_says_so(tmp_path):
    from PIL import Image

    image = Image.new('RGB', (60, 40))
    image.save(tmp_path / 'plain.jpg')
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.jpg', exif=exif)
    assert fault(tmp_path / 'plain.jpg', 40, 60) == '60x40 pixels, but the annotations state 40x60'
    assert fault(tmp_path / 'turned.jpg', 40, 60) is None


def test_classes_as_a_text_are_refused(coco):
    _, build = coco
    with pytest.raises(UserError, match="must be a tuple of names, got the string 'cat'"):
        build(metainfo=dict(classes='cat'))


def test_a_data_set_is_read_once():
    reads = []

    class Squares(ArrayDataset):
        source = 'squares'

        def read(self):
            reads.append(1)
            return Annotations.of(
                ['a.png', 'b.png'], [(9, 9)] * 2, [0, 1], [[0, 0, 5, 5]] * 2, [0, 0], ['square']
            ), None

    dataset = Squares(check_images=False)
    assert [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))] == ['a.png', 'b.png']
    dataset.full_init()
    assert len(reads) == 1


def test_subsets_are_the_images_at_their_positions(digits):
    files = dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'))
    shapes = dict(type='mmyolo.ImageShapePolicy', img_size=320, size_divisor=32, extra_pad_ratio=0.5)
    dataset = CheckedCocoDataset(data_root=str(digits), test_mode=True, batch_shapes_cfg=shapes, **files)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(8)]
    for indices, expected in ((3, paths[:3]), (-2, paths[-2:]), ([4, 0], [paths[4], paths[0]])):
        subset = dataset.get_subset(indices)
        assert [subset.get_data_info(i)['img_path'] for i in range(len(subset))] == expected
        assert len(subset.shapes) == len(expected)
    assert len(dataset) == 8
    assert len(CheckedCocoDataset(data_root=str(digits), test_mode=True, indices=-3, **files)) == 3


def test_masks_are_read_where_a_step_asks_for_them(digits, tmp_path):
    content = json.loads((digits / 'annotations/val.json').read_text())
    for i, annotation in enumerate(content['annotations']):
        annotation['segmentation'] = [[float(i), 0.0, 9.0, 0.0, 9.0, 9.0]]
    (tmp_path / 'val.json').write_text(json.dumps(content))
    dataset = CheckedCocoDataset(
        ann_file=str(tmp_path / 'val.json'),
        data_prefix=dict(img=str(digits / 'val')),
        test_mode=True,
        pipeline=[dict(type='mmyolo.LoadAnnotations', with_bbox=True, with_mask=True)],
    )
    masks = [instance['mask'] for i in range(8) for instance in dataset.get_data_info(i)['instances']]
    assert masks[:2] == [[[0.0, 0.0, 9.0, 0.0, 9.0, 9.0]], [[1.0, 0.0, 9.0, 0.0, 9.0, 9.0]]]
