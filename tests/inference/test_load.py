"""``mmdyn.load_model``: every kind of image, one or many, a checkpoint or an exported file, the same detections."""

import cv2
import numpy as np
import pytest
from PIL import Image

import mmdyn
from mmdyn.errors import UserError


@pytest.fixture(scope='module')
def detector(alike):
    return alike('yolo11n_dynconv_digits.py')


@pytest.fixture(scope='module')
def model(detector):
    return mmdyn.load_model(*detector, device='cpu')


@pytest.fixture(scope='module')
def picture(digits):
    return sorted((digits / 'val').iterdir())[0]


def same(one, other):
    assert len(one.pred_instances) == len(other.pred_instances) > 0
    for key in ('bboxes', 'scores', 'labels'):
        np.testing.assert_allclose(one.pred_instances[key], other.pred_instances[key], atol=1e-3)


def test_every_kind_of_image_gives_the_same(model, picture):
    array = cv2.imread(str(picture))
    expected = model(str(picture), score=0.001)
    assert expected.img_path == str(picture)
    assert expected.ori_shape == (320, 320)
    pil = Image.fromarray(array[..., ::-1])
    for image in (picture, array, pil, pil.convert('RGBA')):
        same(model(image, score=0.001), expected)
    same(model(array[..., 0], score=0.001), model(np.repeat(array[..., :1], 3, 2), score=0.001))


def test_a_list_gives_a_list_in_its_order(model, digits):
    pictures = sorted((digits / 'val').iterdir())[:3]
    several = model(pictures, score=0.001)
    assert [s.img_path for s in several] == [str(p) for p in pictures]
    for sample, path in zip(several, pictures, strict=True):
        same(sample, model(path, score=0.001))
    assert model([]) == []


def test_predictions_are_mmdets_and_draw_themselves(model, picture):
    from mmdet.structures import DetDataSample

    sample = model(picture, score=0.001)
    assert isinstance(sample, DetDataSample)
    drawn = sample.draw()
    assert np.array_equal(sample.clone().cpu().draw(), drawn)
    assert drawn.shape == (320, 320, 3)
    assert (drawn != cv2.imread(str(picture))).any()
    assert np.array_equal(model(picture, score=1.0).draw(), cv2.imread(str(picture)))  # nothing is that sure
    scores = sample.pred_instances.scores
    assert len(model(picture, score=float(scores.median())).pred_instances) < len(scores)


def test_configs_by_name_by_path_and_as_they_are(detector, picture):
    cfg, checkpoint = detector
    named = mmdyn.load_model('yolo11n_dynconv_digits', checkpoint, device='cpu')
    path = mmdyn.load_model('configs/yolo11n_dynconv_digits.py', checkpoint, device='cpu')
    own = mmdyn.load_model(cfg, checkpoint, device='cpu')
    same(named(picture, score=0.001), path(picture, score=0.001))
    same(named(picture, score=0.001), own(picture, score=0.001))
    assert named.names == [str(i) for i in range(10)]


def test_an_exported_file_is_loaded_by_the_same_call(detector, model, picture, tmp_path):
    pytest.importorskip('onnxscript', reason='needs requirements/deploy.txt')
    from mmdyn.export import ExportOptions, export_detector

    path = export_detector(*detector, tmp_path / 'model.onnx', ExportOptions(batch=1)).path
    exported = mmdyn.load_model(path)
    assert exported.names == model.names
    found, expected = exported(picture, score=0.01), model(picture, score=0.01)
    assert abs(len(found.pred_instances) - len(expected.pred_instances)) <= 1
    best = [p.pred_instances.scores.max().item() for p in (found, expected)]
    assert best[0] == pytest.approx(best[1], abs=1e-3)
    with pytest.raises(UserError, match='is an exported file and needs no checkpoint'):
        mmdyn.load_model(path, 'any.pth')


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        ('none.jpg', 'no image at /.*none.jpg'),
        (3, 'an image must be a path, an array or a PIL image, got a int'),
        (np.zeros((4, 4, 3)), r'an array must be BGR uint8 \(height, width, 3\), got float64 \(4, 4, 3\)'),
        (np.zeros((4, 4, 4), np.uint8), r'got uint8 \(4, 4, 4\)'),
    ],
    ids=['missing', 'number', 'floats', 'four channels'],
)
def test_what_is_no_image_is_named(model, image, message):
    with pytest.raises(UserError, match=message):
        model(image)


def test_what_is_no_model_is_named(detector, tmp_path):
    with pytest.raises(UserError, match='yolo11n_coco needs a checkpoint: use load_model'):
        mmdyn.load_model('yolo11n_coco')
    with pytest.raises(UserError, match=r'no config file at .*Did you mean yolo11x_coco'):
        mmdyn.load_model('yolo11q_coco', detector[1])
    for original, ours in (
        ('yolo11n', 'yolo11n_coco'),
        ('yolo11s-seg', 'segment/yolo11s_coco'),
        ('yolo11n-obb', 'obb/yolo11n_dota'),
        ('yolo11n-cls', 'classify/yolo11n_imagenet'),
    ):
        with pytest.raises(UserError, match=rf'Did you mean {ours}\?'):
            mmdyn.load_model(original, detector[1])
    with pytest.raises(UserError, match='no config of the package has this name'):
        mmdyn.load_model('yolo11', detector[1])  # of _base_
    with pytest.raises(UserError, match='no exported file at'):
        mmdyn.load_model(tmp_path / 'none.onnx')
    with pytest.raises(UserError, match='no checkpoint at'):
        mmdyn.load_model('yolo11n_dynconv_digits', tmp_path / 'none.pth')
