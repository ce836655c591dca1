"""Grey images, four channels and sixteen bits: from the file through the pipelines into the model."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.registry import DATASETS, DefaultScope
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets.pixels import bits_and_channels, read_pixels
from mmdyn.errors import UserError
from mmdyn.models.build import build_model
from mmdyn.running import load_config
from mmdyn.running.common_options import set_common_options
from mmdyn.running.image_channels import loading_steps, set_channels

RNG = np.random.default_rng(0)


def picture(channels, bits, height=48, width=64):
    kind = np.uint8 if bits == 8 else np.uint16
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 2**bits, shape, kind)


@pytest.fixture
def data(tmp_path):
    """A data.yaml whose images have these channels and bits."""

    def make(channels, bits, suffix='.png', stated=None):
        for split in ('train', 'val'):
            for name in ('images', 'labels'):
                (tmp_path / name / split).mkdir(parents=True)
            for i in range(5):
                image = picture(channels, bits)
                if channels == 2:
                    cv2.imwritemulti(str(tmp_path / f'images/{split}/{i}{suffix}'), [image[..., 0], image[..., 1]])
                else:
                    cv2.imwrite(str(tmp_path / f'images/{split}/{i}{suffix}'), image)
                (tmp_path / f'labels/{split}/{i}.txt').write_text('0 0.5 0.5 0.4 0.4\n')
        content = dict(train='images/train', val='images/val', names=['cell'], channels=stated or channels)
        (tmp_path / 'data.yaml').write_text(yaml.safe_dump(content))
        return tmp_path / 'data.yaml'

    return make


@pytest.mark.parametrize(
    ('channels', 'bits', 'suffix'), [(1, 8, '.png'), (1, 16, '.png'), (4, 8, '.png'), (4, 16, '.tiff'), (2, 8, '.tiff')]
)
def test_images_reach_the_model(data, channels, bits, suffix):
    cfg = load_config('yolo11n_dynconv_coco')
    set_common_options(cfg, data=data(channels, bits, suffix), imgsz=(64, 64))
    cfg.model.train_cfg.assigner.pop('num_classes', None)
    model = build_model(cfg)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            dataset = DATASETS.build(loader.dataset)
            data_ = dataset[0]
            assert data_['inputs'].shape[0] == channels
            assert data_['inputs'].dtype == (torch.float32 if bits == 16 else torch.uint8)
            batch = dict(inputs=[data_['inputs']], data_samples=[data_['data_samples']])
            prepared = model.data_preprocessor(batch, False)
            assert prepared['inputs'].shape[1] == channels
            assert 0 <= prepared['inputs'].min() <= prepared['inputs'].max() <= 1
    assert len(model.eval().test_step(batch)) == 1


def test_sixteen_bits_keep_their_precision(tmp_path):
    image = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    cv2.imwrite(str(tmp_path / 'deep.png'), image)
    np.testing.assert_allclose(read_pixels(tmp_path / 'deep.png', 1, to_float32=True)[..., 0], image / 257, rtol=1e-6)
    assert read_pixels(tmp_path / 'deep.png', 1).dtype == np.uint8
    np.testing.assert_array_equal(read_pixels(tmp_path / 'deep.png', 1)[..., 0], image >> 8)


def test_pixels_are_opencvs(tmp_path, digits):
    path = sorted((digits / 'val').iterdir())[0]
    assert np.array_equal(read_pixels(path), cv2.imread(str(path)))
    assert np.array_equal(read_pixels(path, 1)[..., 0], cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    image = picture(4, 8)
    cv2.imwrite(str(tmp_path / 'four.png'), image)
    assert np.array_equal(read_pixels(tmp_path / 'four.png', 4), image)
    assert np.array_equal(read_pixels(tmp_path / 'four.png'), cv2.imread(str(tmp_path / 'four.png')))


def test_pages_of_a_tiff_are_channels(tmp_path):
    pages = [picture(1, 16) for _ in range(4)]
    cv2.imwritemulti(str(tmp_path / 'pages.tiff'), pages)
    assert bits_and_channels(tmp_path / 'pages.tiff') == (16, 4)
    found = read_pixels(tmp_path / 'pages.tiff', 4, to_float32=True)
    np.testing.assert_allclose(found, np.dstack(pages) / 257, rtol=1e-6)


def test_faults_are_named(data, tmp_path):
    with pytest.raises(UserError, match=r"'channels' is 4, but .*0.png has 3"):
        set_common_options(load_config('yolo11n_coco'), data=data(3, 8, stated=4))
    file = tmp_path / 'images/train/0.png'
    with pytest.raises(UserError, match=r'0.png has 3 channels, where the model takes 4'):
        read_pixels(file, 4)
    (tmp_path / 'text.png').write_text('no picture')
    for read in (read_pixels, bits_and_channels):
        with pytest.raises(UserError, match=r'text.png is not an image that OpenCV reads'):
            read(tmp_path / 'text.png')
        with pytest.raises(UserError, match='no image at .*nowhere.png'):
            read(tmp_path / 'nowhere.png')
    with pytest.raises(UserError, match='invalid number of image channels 5: set it to 1 to 4'):
        set_channels(load_config('yolo11n_coco'), 5)
    cv2.imwrite(str(tmp_path / 'float.tiff'), np.zeros((4, 4), np.float32))
    with pytest.raises(UserError, match='pixels of type float32: convert it to 8 or 16 bits'):
        read_pixels(tmp_path / 'float.tiff', 1, to_float32=True)


def test_the_backbone_says_it_for_all_steps():
    cfg = load_config('yolo11n_coco', {'model.backbone.input_channels': 4})
    steps = list(loading_steps(cfg))
    assert len(steps) > 5
    assert all(step['type'] == 'mmyolo.LoadImage' and step['channels'] == 4 for step in steps)
    assert cfg.model.data_preprocessor.to_dict() == dict(
        type='YOLO11DataPreprocessor', mean=[0.0], std=[255.0], bgr_to_rgb=False
    )
    assert not any('channels' in step for step in loading_steps(load_config('yolo11n_coco')))
    json.dumps(cfg.to_dict())


def test_sixteen_bits_of_colours_are_kept(data):
    cfg = load_config('yolo11n_coco')
    set_common_options(cfg, data=data(3, 16), imgsz=(64, 64))
    assert all(step['type'] == 'mmyolo.LoadImage' and step['to_float32'] for step in loading_steps(cfg))
    with DefaultScope.overwrite_default_scope('mmyolo'):
        inputs = DATASETS.build(cfg.val_dataloader.dataset)[0]['inputs']
    assert inputs.dtype == torch.float32
    assert (inputs % 1 != 0).any()
    assert cfg.model.data_preprocessor.bgr_to_rgb


def test_loading_takes_only_what_it_obeys():
    with pytest.raises(TypeError, match='imdecode_backend'):
        TRANSFORMS.build(dict(type='mmyolo.LoadImage', imdecode_backend='pillow'))
