"""Grey and deep images, and sizes that are no square: the checkpoint and its exported file detect the same."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

import mmdyn
from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.export.export import export_detector
from mmdyn.export.options import ExportOptions
from mmdyn.inference import use_exported
from mmdyn.inference.load import as_array
from mmdyn.running import load_config
from mmdyn.running.common_options import set_common_options
from mmdyn.running.image_channels import set_channels


def boxes(model, image):
    instances = model(image, score=0.001).pred_instances
    return np.column_stack([instances.bboxes, instances.scores, instances.labels])[:20]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Pictures of one, three and four channels, and of 16 bits."""
    folder = tmp_path_factory.mktemp('files')
    colours = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8), (9, 9), 0)
    grey = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)
    images = dict(colours=colours, grey=grey, four=np.dstack([colours, grey]), deep=grey.astype(np.uint16) * 257)
    for name, image in images.items():
        cv2.imwrite(str(folder / f'{name}.png'), image)
    return {name: folder / f'{name}.png' for name in images}


@pytest.mark.slow
@pytest.mark.parametrize(('channels', 'name', 'deep'), [(1, 'deep', True), (4, 'four', False)])
def test_an_exported_file_detects_as_its_checkpoint(alike, files, tmp_path, channels, name, deep):
    cfg = load_config('yolo11n_dynconv_digits')
    set_channels(cfg, channels, to_float32=deep)
    set_common_options(cfg, imgsz=(96, 160))
    cfg, checkpoint = alike('yolo11n_dynconv_digits.py', **cfg.to_dict())
    export_detector(cfg, checkpoint, tmp_path / 'model.onnx', ExportOptions())
    ours, exported = mmdyn.load_model(cfg, checkpoint, 'cpu'), mmdyn.load_model(tmp_path / 'model.onnx')
    assert (exported.channels, exported.to_float32, exported.detector.size) == (channels, deep, [96, 160])
    one, other = boxes(ours, files[name]), boxes(exported, files[name])
    assert len(one) == len(other) > 3
    np.testing.assert_allclose(one, other, atol=0.02)
    assert ours(files[name]).draw().shape == (90, 120, 3)
    assert use_exported(cfg, tmp_path / 'model.onnx').model.type == 'mmyolo.ExportedDetector'
    other_size = load_config('yolo11n_dynconv_digits')
    with pytest.raises(UserError, match='is for images of 96 x 160 pixels, the config has 320 x 320'):
        use_exported(other_size, tmp_path / 'model.onnx')
    script = ROOT / 'mmdyn/inference/onnx_detector.py'
    command = [sys.executable, script, tmp_path / 'model.onnx', files[name], '--out-dir', tmp_path, '--score', '0.001']
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f'{name}.detected.jpg').is_file()
    wrong = subprocess.run(
        [sys.executable, script, tmp_path / 'model.onnx', files['colours']], capture_output=True, text=True
    )
    assert wrong.returncode == (1 if channels == 4 else 0), wrong.stderr


def test_every_kind_of_image_becomes_the_channels_of_the_model(files):
    colours, grey, deep = (cv2.imread(str(files[n]), cv2.IMREAD_UNCHANGED) for n in ('colours', 'grey', 'deep'))
    for image in (files['grey'], grey, grey[..., None], Image.open(files['grey']), colours, deep):
        np.testing.assert_array_equal(as_array(image, 1)[..., 0], grey)
    np.testing.assert_allclose(as_array(deep, 1, to_float32=True)[..., 0], grey, rtol=1e-6)
    np.testing.assert_allclose(as_array(Image.open(files['deep']), 1, to_float32=True)[..., 0], grey, rtol=1e-6)
    np.testing.assert_array_equal(as_array(Image.open(files['four']), 3), cv2.imread(str(files['four'])))
    assert as_array(grey).shape == (90, 120, 3)
    for image, channels in ((grey, 4), (colours, 4), (colours.astype(np.float64), 3)):
        with pytest.raises(UserError, match=rf'an array must be .*uint8 \(height, width, {channels}\), got'):
            as_array(image, channels)


def test_pil_images_are_as_their_files(files):
    for name, channels in (('four', 4), ('colours', 3), ('grey', 1), ('deep', 1), ('deep', 3)):
        found, expected = as_array(Image.open(files[name]), channels), as_array(files[name], channels)
        np.testing.assert_array_equal(found, expected)
    grey = Image.open(files['grey'])
    np.testing.assert_array_equal(as_array(grey.convert('LA'), 1), as_array(grey, 1))
    np.testing.assert_array_equal(as_array(grey.convert('I'), 1), np.zeros((90, 120, 1)))  # 16 bits, upper ones
    assert set(np.unique(as_array(grey.convert('1'), 1))) <= {0, 255}


def test_floats_are_for_models_of_sixteen_bits():
    image = np.random.default_rng(0).random((8, 8, 3), np.float32)
    with pytest.raises(UserError, match='an array must be BGR uint8'):
        as_array(image)
    assert as_array(image, to_float32=True).dtype == np.float32


def test_options_may_stand_anywhere(call, files, tmp_path):
    done = call('demo/image_demo.py', files['colours'], '--score-thr', '0.5', 'digits', '--out-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'vis/colours.png').is_file()
