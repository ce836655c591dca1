"""Exports for phones: LiteRT is run and compared; Core ML is converted, and runs on macOS only."""

import json
import platform
from importlib.util import find_spec

import numpy as np
import pytest

import mmdyn
from mmdyn.errors import UserError
from mmdyn.export.export import export_detector
from mmdyn.export.options import ExportOptions, check_options
from mmdyn.inference.packaged import packaged
from mmdyn.inference.runtimes import METADATA, open_exported
from mmdyn.layers import dynamic_layers
from mmdyn.running.config_file import load_config

litert = pytest.mark.skipif(find_spec('litert_torch') is None, reason='needs requirements/mobile.txt')
coreml = pytest.mark.skipif(find_spec('coremltools') is None, reason='needs requirements/mobile.txt')
NAMES = [str(i) for i in range(10)]


@pytest.fixture(scope='module')
def dynamic():
    config, checkpoint = packaged('digits')
    return load_config(config), checkpoint


def boxes_of(model, path, score):
    found = model(path, score).pred_instances
    return found.bboxes.numpy(), found.scores.numpy(), found.labels.tolist()


@litert
@pytest.mark.parametrize('options', [{}, {'half': True}, {'form': 'mixed_outputs'}], ids=str)
def test_litert_detects_as_pytorch(dynamic, digits, tmp_path, options):
    done = export_detector(*dynamic, tmp_path / 'm.tflite', ExportOptions('litert', batch=1, **options))
    assert done.compared
    assert done.boxes < (2 if 'half' in options else 1e-3)
    exported, ours = mmdyn.load_model(done.path), mmdyn.load_model('digits', device='cpu')
    assert exported.names == NAMES
    path = sorted((digits / 'val').iterdir())[0]
    found, expected = boxes_of(exported, path, 0.3), boxes_of(ours, path, 0.3)
    assert found[2] == expected[2] != []
    tolerance = 2 if 'half' in options else 0.01
    np.testing.assert_allclose(found[0], expected[0], atol=tolerance)
    assert [p.name for p in tmp_path.iterdir()] == ['m.tflite']


@litert
def test_litert_int8_quantises_what_is_not_mixed(dynamic, digits, tmp_path):
    cfg, checkpoint = dynamic
    cfg.train_dataloader.dataset.data_root = f'{digits}/'
    options = ExportOptions('litert', batch=1, int8=True, calibration=8)
    done = export_detector(cfg, checkpoint, tmp_path / 'm.tflite', options)
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(done.path)).get_tensor_details()
    experts = sum(layer.experts.numel() for layer in dynamic_layers(mmdyn.load_model('digits').detector.model).values())
    floats = [int(np.prod(d['shape'])) for d in details if d['dtype'] == np.float32]
    assert sum(d['dtype'] == np.int8 for d in details) > 50
    assert sum(floats) > experts  # those stay
    assert done.size < 14e6  # 18.6 MB in float32
    path = sorted((digits / 'val').iterdir())[0]
    found = mmdyn.load_model(done.path)(path, 0.3).pred_instances
    expected = mmdyn.load_model('digits', device='cpu')(path, 0.3).pred_instances
    assert found.labels.tolist()[:2] == expected.labels.tolist()[:2]
    np.testing.assert_allclose(found.scores[:2], expected.scores[:2], atol=0.1)


@litert
def test_damaged_files_are_named(tmp_path):
    for content in (b'', b'no model' * 100):
        (tmp_path / 'm.tflite').write_bytes(content)
        with pytest.raises(UserError, match=r'm\.tflite does not load in LiteRT'):
            open_exported(tmp_path / 'm.tflite')


@coreml
@pytest.mark.parametrize('options', [{}, {'half': True}, {'int8': True}, {'form': 'mixed_outputs'}], ids=str)
def test_coreml_is_converted(dynamic, tmp_path, options):
    import coremltools as ct

    (tmp_path / 'm.mlpackage').mkdir()  # an earlier one is replaced
    (tmp_path / 'm.mlpackage/old').write_text('')
    done = export_detector(*dynamic, tmp_path / 'm.mlpackage', ExportOptions('coreml', batch=1, **options))
    model = ct.models.MLModel(str(done.path), skip_model_load=True)
    description = model.get_spec().description
    assert [(i.name, list(i.type.multiArrayType.shape)) for i in description.input] == [('images', [1, 3, 320, 320])]
    assert [o.name for o in description.output] == ['boxes', 'scores']
    float32 = 65568
    assert {o.type.multiArrayType.dataType for o in description.output} == {float32}
    assert json.loads(json.loads(model.user_defined_metadata[METADATA])['names']) == NAMES
    assert not (done.path / 'old').exists()
    assert done.size == pytest.approx({'half': 10.6e6, 'int8': 10.0e6}.get(next(iter(options), ''), 19.7e6), rel=0.08)
    if platform.system() != 'Darwin':
        assert not done.compared
        with pytest.raises(UserError, match=r'm\.mlpackage runs on macOS only'):
            mmdyn.load_model(done.path)


@coreml
def test_what_a_format_cannot_take_is_named():
    for options, message in (
        (dict(format='coreml', batch=1, form='mixed_inputs'), 'Core ML has no tensors of more than five dimensions'),
        (dict(format='coreml'), 'coreml takes a fixed number of images of a fixed size, without NMS: set --batch 1'),
        (dict(format='litert', batch=1, nms=True), 'litert takes a fixed number of images'),
    ):
        with pytest.raises(UserError, match=message):
            check_options(ExportOptions(**options))
