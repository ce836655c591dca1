"""``--weights``: files of any origin become the same checkpoint, and configs come from files that may be hostile."""

import functools
import os
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import safetensors.torch
import torch
from mmengine.config import Config

from conftest import ROOT
from mmdyn.checkpoints import load_checkpoint
from mmdyn.convert import convert_to_original, read_weights, weights_config
from mmdyn.convert.stored_config import stored_config
from mmdyn.errors import UserError
from mmdyn.inference import load_model
from mmdyn.inference.packaged import packaged
from mmdyn.models.build import build_model
from mmdyn.running import load_config
from mmdyn.running.image_channels import set_channels

VARIANTS = ['yolo11n', 'yolo11n_dynconv', 'yolo11n_dynconv-bn', 'yolo11n_c3k2_dynconv-bn']


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_form_of_a_file_is_the_same_checkpoint(alike, tmp_path, variant):
    _, ours = alike(f'{variant}_coco.py')
    content = torch.load(ours, weights_only=True)
    tensors = content['state_dict']
    torch.save(content, tmp_path / 'ours.pt')
    safetensors.torch.save_file(tensors, tmp_path / 'ours.safetensors')
    files = ['ours.pt', 'ours.safetensors']
    if '-bn' not in variant:  # the published ones have none after their dynamic convolutions
        convert_to_original(ours, tmp_path / 'theirs.pt')
        convert_to_original(ours, tmp_path / 'theirs.safetensors')
        files += ['theirs.pt', 'theirs.safetensors']
    for name in files:
        same(load_checkpoint(tmp_path / name)['state_dict'], tensors)
        built = build_model(weights_config(tmp_path / name))
        assert built.state_dict().keys() == tensors.keys()
    assert load_checkpoint(tmp_path / files[-1])['meta'].get('dataset_meta') == (
        content['meta']['dataset_meta'] if files[-1] == 'theirs.safetensors' else None
    )


OPTIONS = {
    'model.backbone.downsample_cfg.conv_cfg.num_experts': 3,
    'model.neck.downsample_cfg.conv_cfg.router': 'softmax',
    'model.bbox_head.head_module.num_classes': 3,
    'img_scale': (416, 416),
}


def test_a_checkpoint_of_a_training_brings_its_model_and_size(tmp_path):
    cfg = load_config('yolo11n_dynconv-bn_coco', OPTIONS)
    model = build_model(cfg)
    classes = ('ant', 'bee', 'cat')
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'best.pth')
    restored = weights_config(tmp_path / 'best.pth')
    assert restored.model.to_dict() == cfg.model.to_dict()
    assert restored.img_scale == (416, 416)
    detector = load_model(tmp_path / 'best.pth', device='cpu')
    assert detector.names == list(classes)
    router = detector.detector.model.neck.downsample_layers[0].conv.router
    assert router.activation == 'softmax'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("model = dict(type='os.system', command='touch HERE')", 'has os.system, which no config of mmdyn has'),
        ("model = dict(type='YOLODetector', backbone=dict(type='subprocess.run'))", 'has subprocess.run, which no'),
        ("model = __import__('os').system('touch HERE')", 'cannot be read .*calls something other than dict'),
        ("model = dict(type=open('HERE', 'w'))", 'calls something other than dict'),
        ("model = dict(**dict(type='x'))", 'unpacks a dict'),
        ('model = {**a}', 'a dict is unpacked'),
        ("model = 'a' 'b", 'cannot be read'),
        ('model = ' + '[' * 5000, 'cannot be read'),
        ('model = {[1]: 2}', 'cannot be read'),
        ("model = dict(type='YOLODetector', data_preprocessor=None)", 'does not build|has NoneType|lacks'),
    ],
)
def test_a_hostile_config_is_refused_and_not_run(alike, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    _, ours = alike('yolo11n_digits.py')
    content = torch.load(ours, weights_only=True)
    torch.save(dict(content, meta=dict(cfg=text)), tmp_path / 'hostile.pth')
    with pytest.raises(UserError, match=message):
        weights_config(tmp_path / 'hostile.pth')
    assert not (tmp_path / 'HERE').exists()


def test_a_config_without_a_model_is_none():
    assert stored_config('a = 1', 'x.pth') is None
    assert stored_config("model = dict(type='YOLODetector')", 'x.pth').size == (640, 640)


def test_packaged_weights_state_no_config_and_are_recognised():
    _, path = packaged('yolo11n_dynconv_digits')
    assert weights_config(path).model.backbone.downsample_cfg.type == 'DynamicConv'


def test_channels_and_bits_come_from_the_checkpoint_too(tmp_path):
    cfg = load_config('yolo11n_digits')
    set_channels(cfg, 1, to_float32=True)
    meta = dict(cfg=cfg.pretty_text)
    torch.save(dict(state_dict=build_model(cfg).state_dict(), meta=meta), tmp_path / 'grey.pth')
    model = load_model(tmp_path / 'grey.pth', device='cpu')
    assert (model.channels, model.to_float32) == (1, True)


def test_a_config_that_does_not_fit_its_tensors_is_refused(alike, tmp_path):
    _, ours = alike('yolo11n_digits.py')
    content = torch.load(ours, weights_only=True)
    text = load_config('yolo11n_digits').pretty_text.replace('widen_factor=0.25', 'widen_factor=50.0')
    torch.save(dict(content, meta=dict(cfg=text)), tmp_path / 'large.pth')
    with pytest.raises(UserError, match='does not fit the config that it states'):
        weights_config(tmp_path / 'large.pth')


def test_other_detectors_stay_as_they_are(tmp_path):
    tensors = {'backbone.conv1.weight': torch.ones(3), 'fc.weight': torch.zeros(2)}
    torch.save(tensors, tmp_path / 'resnet.pt')
    same(load_checkpoint(tmp_path / 'resnet.pt'), tensors)
    safetensors.torch.save_file(tensors, tmp_path / 'resnet.safetensors')
    same(load_checkpoint(tmp_path / 'resnet.safetensors')['state_dict'], tensors)


class Runs:
    def __reduce__(self):
        return os.mkdir, ('EXECUTED',)


def test_a_file_behind_a_url_is_read_as_safely_as_any_other(alike, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    (tmp_path / 'served').mkdir()
    _, ours = alike('yolo11n_digits.py')
    shutil.copy(ours, tmp_path / 'served/good.pth')
    torch.save(dict(state_dict=Runs()), tmp_path / 'served/evil.pth')
    handler = functools.partial(QuietHandler, directory=tmp_path / 'served')
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        same(load_checkpoint(f'{address}/good.pth')['state_dict'], torch.load(ours, weights_only=True)['state_dict'])
        with pytest.raises(UserError, match='evil.pth is not a checkpoint that loads safely'):
            load_checkpoint(f'{address}/evil.pth')
        with pytest.raises(UserError, match='none.pth cannot be downloaded'):
            load_checkpoint(f'{address}/none.pth')
        server.shutdown()
    assert not (tmp_path / 'EXECUTED').exists()
    with pytest.raises(UserError, match='is a URL: download the file first'):
        weights_config(f'{address}/good.pth')


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_what_is_no_weights_is_named(tmp_path):
    (tmp_path / 'text.pt').write_text('no weights')
    torch.save([1, 2], tmp_path / 'list.pt')
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(3)}), tmp_path / 'resnet.pth')
    for read, name, message in (
        (read_weights, 'none.pt', r'no checkpoint at .*none\.pt|no weights at .*none\.pt'),
        (read_weights, 'text.pt', 'text.pt is damaged or not a PyTorch checkpoint'),
        (read_weights, 'list.pt', 'list.pt contains a list, not weights'),
        (weights_config, 'resnet.pth', 'is not of a YOLO11 of mmdyn: it contains .*conv1.weight.*Give its config'),
    ):
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)


def average_precision(output: str) -> str:
    return re.findall(r'coco/bbox_mAP: (\S+)', output)[-1]


@pytest.mark.slow
def test_a_dynamic_detector_starts_with_the_precision_of_its_static_weights(call, digits, tmp_path):
    """Also from the original's form of the file."""
    _, static = packaged('yolo11n_digits')
    convert_to_original(static, tmp_path / 'static.pt')
    common = ('--data', digits, '--work-dir', tmp_path / 'work', '--workers', 0)
    alone = call('tools/test.py', '--weights', static, '--imgsz', 320, *common)
    assert alone.returncode == 0, alone.stderr
    expected = average_precision(alone.stdout)
    assert float(expected) > 0.2
    dynamic = call('tools/test.py', 'yolo11n_dynconv-bn_digits', '--weights', tmp_path / 'static.pt', *common)
    assert average_precision(dynamic.stdout) == expected, dynamic.stderr


def test_a_training_says_what_it_takes(call, digits, tmp_path):
    _, static = packaged('yolo11n_digits')
    convert_to_original(static, tmp_path / 'static.safetensors')
    options = (
        '--weights',
        tmp_path / 'static.safetensors',
        '--epochs',
        1,
        '--data',
        digits,
        '--workers',
        0,
        '--imgsz',
        96,
    )
    trained = call('tools/train.py', 'yolo11n_dynconv-bn_digits', *options, '--work-dir', tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert 'static.safetensors, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, …' in trained.stdout
    assert 'upcycled: 6 dynamic convolutions start with copies of static kernels' in trained.stdout
    assert 'new: nothing' in trained.stdout
    assert 'No --weights' not in trained.stdout


@pytest.mark.parametrize('task', ['segment', 'pose', 'obb'])
def test_weights_of_detection_start_another_task_and_are_not_tested_as_one(call, digits, tmp_path, task):
    _, static = packaged('yolo11n_digits')
    options = ('--data', digits, '--workers', 0, '--work-dir', tmp_path)
    tested = call('tools/test.py', f'{task}/yolo11n_digits', static, *options)
    assert tested.returncode == 1
    assert 'missing bbox_head.head_module.' in tested.stderr
    options = (*options, '--weights', static, '--epochs', 1, '--imgsz', 96)
    trained = call('tools/train.py', f'{task}/yolo11n_digits', *options)
    assert trained.returncode == 0, trained.stderr
    for branch in dict(segment=('mask_preds', 'prototypes'), pose=('keypoint_preds',), obb=('angle_preds',))[task]:
        assert branch in trained.stdout
    assert '10 classes: 0, 1, 2, 3, 4, 5, 6, 7, …' in trained.stdout


@pytest.mark.slow
def test_detect_and_export_take_weights_alone(call, digits, tmp_path):
    pytest.importorskip('onnxscript', reason='needs requirements/deploy.txt')
    _, path = packaged('yolo11n_dynconv_digits')
    done = call('demo/image_demo.py', digits / 'val', '--weights', path, '--out-dir', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert re.search(r'\d+ objects in 8 images', done.stdout)
    done = call('tools/export.py', path, '--imgsz', 320, '--out', tmp_path / 'digits.onnx')
    assert done.returncode == 0, done.stderr
    assert f'image_demo.py IMAGE {tmp_path / "digits.onnx"}' in done.stdout
    both = call('tools/export.py', 'yolo11n_coco', path, '--weights', path)
    assert both.returncode == 1
    assert 'exclude each other' in both.stderr
    assert 'set CONFIG CHECKPOINT, or --weights FILE' in call('tools/test.py').stderr


@pytest.mark.parametrize('config', ['yolo11n_digits', 'yolo11n_dynconv-bn_digits'])
def test_fine_tuning_on_other_classes_starts_with_a_new_class_branch(call, digits, tmp_path, config):
    """Of as many classes as the weights, so that no shape tells."""
    _, ours = packaged('yolo11n_digits')
    content = torch.load(ours, weights_only=True)
    content['meta']['dataset_meta'] = dict(classes=tuple('abcdefghij'))
    torch.save(content, tmp_path / 'letters.pth')
    done = call(
        *('tools/train.py', ROOT / f'configs/{config}.py', '--weights', tmp_path / 'letters.pth'),
        *('--data', digits, '--work-dir', tmp_path, '--workers', 0, '--epochs', 1, '--lr', 1e-30),
    )
    assert done.returncode == 0, done.stderr
    assert 'new: 3 layers of the class branch only, because the classes differ' in done.stdout
    trained = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    before = content['state_dict']
    static = {k: v for k, v in trained.items() if k in before and v.shape == before[k].shape}
    changed = {k for k, v in static.items() if not torch.allclose(v.float(), before[k].float(), atol=1e-3)}
    assert {k for k in changed if 'running' not in k and 'tracked' not in k} == {
        f'bbox_head.head_module.cls_preds.{level}.4.{name}' for level in range(3) for name in ('weight', 'bias')
    }


def test_no_config_has_a_type_that_those_of_coco_lack():
    from mmdyn.convert.stored_config import CONFIGS, _types, known_types

    for path in CONFIGS.rglob('yolo11n*.py'):
        assert {*_types(Config.fromfile(path).get('model'))} <= known_types(), path
