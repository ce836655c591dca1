"""Controls of a training: each changes what it should, and refuses what it cannot do."""

import re
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.models.build import build_model
from mmdyn.models.numbering import NUMBERED, first_layers
from mmdyn.running import load_config, training_options
from mmdyn.running.auto_batch import _training_losses, largest_batch, measured_batch
from mmdyn.running.image_size import set_image_size
from mmdyn.running.training_options import add_logger, set_training_options, start_from_weights

CONFIG, RECIPE = 'yolo11n_dynconv-bn_digits', 'configs/_base_/finetune.py'
QUICK = ('--workers', 0, '--epochs', 1, '--imgsz', 96, '--batch', 8)


@pytest.mark.parametrize('freeze', [10, 'backbone'])
def test_frozen_layers_stay_as_they_are_and_others_learn(call, digits, tmp_path, freeze):
    cfg = load_config(CONFIG)
    torch.manual_seed(0)
    start = build_model(cfg)
    torch.save(dict(state_dict=start.state_dict(), meta={}), tmp_path / 'start.pth')
    options = ('--weights', tmp_path / 'start.pth', '--freeze', freeze, '--lr', 0.1, *QUICK)
    done = call('tools/train.py', CONFIG, '--data', digits, '--work-dir', tmp_path, *options)
    assert done.returncode == 0, done.stderr
    trained = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    before = start.state_dict()
    frozen = [name for number, name in NUMBERED.items() if number < (10 if freeze == 10 else 11)]
    equal = {k: torch.equal(v, before[k]) for k, v in trained.items()}
    assert all(v for k, v in equal.items() if any(k.startswith(f'{name}.') for name in frozen))
    rest = [
        k for k in equal if k.endswith(('.weight', 'running_mean')) and not any(k.startswith(f'{n}.') for n in frozen)
    ]
    assert not any(equal[k] for k in rest)


def test_all_but_the_head_can_be_frozen():
    model = build_model(load_config('yolo11n_coco'))
    layers = first_layers(model, 23)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    outside = [name for name, p in model.named_parameters() if id(p) not in inside]
    assert all(name.startswith('bbox_head.') for name in outside)
    with pytest.raises(UserError, match='only the layers of a YOLO11 have numbers'):
        first_layers(torch.nn.Linear(1, 1), 3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(freeze=99), 'invalid number of frozen layers 99: set 1 to 23'),
        (dict(freeze=0), 'invalid number of frozen layers 0'),
        (dict(freeze='neck'), 'invalid number of frozen layers neck: .*or backbone'),
        (dict(patience=0), 'invalid --patience 0: set it to 1 epoch or more'),
        (dict(classes=['sevn']), "there is no class 'sevn'. There are 10 classes: 0, 1"),
        (dict(classes=['10']), "there is no class '10'. Did you mean 1 or 0"),
    ],
)
def test_what_cannot_be_is_refused(digits, options, message):
    cfg = load_config('yolo11n_digits', {f'{k}_dataloader.dataset.data_root': f'{digits}/' for k in ('train', 'val')})
    with pytest.raises(UserError, match=message):
        set_training_options(cfg, **options)


def test_classes_are_chosen_by_name_and_number(call, digits, tmp_path):
    done = call('tools/train.py', CONFIG, '--data', digits, '--work-dir', tmp_path, '--classes', '7', '3', *QUICK)
    assert done.returncode == 0, done.stderr
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == ('3', '7')
    assert content['state_dict']['bbox_head.head_module.cls_preds.0.4.bias'].shape == (2,)


def test_one_class_is_detected_wherever_there_was_one_of_many(call, digits, tmp_path):
    done = call('tools/train.py', CONFIG, '--data', digits, '--work-dir', tmp_path, '--single-cls', *QUICK)
    assert done.returncode == 0, done.stderr
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == ('object',)
    again = call('tools/test.py', CONFIG, tmp_path / 'epoch_1.pth', '--data', digits, '--workers', 0)
    assert again.returncode == 1
    assert 'has 1 class: object; the config has 10' in again.stderr


def test_chosen_classes_are_merged_without_the_others(digits):
    from mmyolo.registry import DATASETS

    root = {f'{k}_dataloader.dataset.data_root': f'{digits}/' for k in ('train', 'val', 'test')}
    cfg = load_config('yolo11n_digits', root)
    whole = DATASETS.build(cfg.train_dataloader.dataset)
    set_training_options(cfg, classes=['1', '7'], single_class=True)
    merged = DATASETS.build(cfg.train_dataloader.dataset)
    assert merged.metainfo['classes'] == ('object',)
    for i in range(len(whole)):
        kept = [each['bbox'] for each in whole.get_data_info(i)['instances'] if each['bbox_label'] in (1, 7)]
        assert [each['bbox'] for each in merged.get_data_info(i)['instances']] == kept
        assert {each['bbox_label'] for each in merged.get_data_info(i)['instances']} <= {0}
    assert len(merged.annotations.boxes) == np.isin(whole.annotations.labels, (1, 7)).sum() > 0


def test_controls_of_yolo_are_refused_or_left_out_for_other_detectors():
    cfg = load_config('retinanet_dynconv_r50_fpn_1x_coco')
    before = cfg.to_dict()
    start_from_weights(cfg, 'x.pth')
    assert cfg.to_dict() == dict(before, load_from='x.pth', resume=False)
    for options, message in (
        (dict(multi_scale=True), 'needs a YOLO11DataPreprocessor'),
        (dict(classes=['cat']), 'classes cannot be chosen in a CocoDataset'),
        (dict(patience=3), 'follows the metric .*which is None'),
    ):
        with pytest.raises(UserError, match=message):
            set_training_options(cfg, **options)


def test_patience_ends_a_training_that_no_longer_improves(call, digits, tmp_path):
    options = ('--epochs', 9, '--patience', 2, '--lr', 1e-30, *QUICK[:2], *QUICK[4:])
    keys = ('train_cfg.val_interval=1', 'default_hooks.param_scheduler.warmup_bias_lr=0')
    done = call('tools/train.py', CONFIG, '--data', digits, '--work-dir', tmp_path, *options, '--cfg-options', *keys)
    assert done.returncode == 0, done.stderr
    epochs = [int(epoch) for epoch in re.findall(r'Epoch\(val\) \[(\d+)\]\[', done.stdout)]
    assert 1 < max(epochs) < 9
    assert 'did not improve' in done.stdout


@pytest.mark.parametrize(('options', 'interval'), [(['train_cfg.val_interval=20'], 20), (None, 6)])
def test_epochs_leave_an_interval_that_was_set(monkeypatch, options, interval):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    from _arguments import config_of

    arguments = Namespace(config='yolo11n_coco', cfg_options=options, epochs=60, weights=None, batch=None)
    arguments.__dict__.update(dict.fromkeys(('classes', 'single_cls', 'freeze', 'patience', 'multi_scale')))
    assert config_of(arguments).train_cfg.val_interval == interval


def test_multi_scale_resizes_batches(digits):
    cfg = load_config('yolo11n_digits')
    set_training_options(cfg, multi_scale=True)
    preprocessor = build_model(cfg).data_preprocessor
    sides = set()
    for _ in range(40):
        boxes = torch.tensor([[0, 1, 32.0, 32.0, 160.0, 64.0]])
        data = dict(inputs=torch.zeros(1, 3, 320, 320), data_samples=dict(bboxes_labels=boxes, img_metas=[]))
        done = preprocessor(data, training=True)
        side = done['inputs'].shape[-1]
        expected = torch.tensor([32.0, 32.0, 160.0, 64.0]) * side / 320
        assert torch.allclose(done['data_samples']['bboxes_labels'][0, 2:], expected)
        sides.add(side)
    assert min(sides) >= 160
    assert max(sides) <= 480
    assert len(sides) > 5
    assert all(side % 32 == 0 for side in sides)
    wide = load_config('yolo11n_digits')
    set_image_size(wide, 192, 320)
    set_training_options(wide, multi_scale=True)
    assert wide.model.data_preprocessor.batch_augments[0].random_size_range == (96, 288)


def test_seed_and_name_and_device_are_those_of_the_run(call, digits, tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    options = ('--data', digits, '--work-dir', tmp_path, '--name', 'try', '--seed', 7, '--device', 'cpu', *QUICK)
    done = call('tools/train.py', CONFIG, *options)
    assert done.returncode == 0, done.stderr
    assert 'seed=7' in (tmp_path / f'try/{CONFIG}.py').read_text()
    for device, message in (('7,8', 'for several GPUs'), ('cuda:9', 'finds no such GPU here')):
        refused = call('tools/train.py', CONFIG, '--device', device)
        assert refused.returncode == 1
        assert message in refused.stderr


def test_loggers_are_named():
    cfg = load_config('yolo11n_digits')
    with pytest.raises(UserError, match="no logger 'tensorbord': set tensorboard, wandb"):
        add_logger(cfg, 'tensorbord')
    with pytest.raises(UserError, match='needs the package aim: pip install aim'):
        add_logger(cfg, 'aim')
    pytest.importorskip('tensorboard')
    for _ in range(2):  # a second one of a name would log twice
        add_logger(cfg, 'tensorboard')
    assert [each.type for each in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    cfg.visualizer.vis_backends = None
    add_logger(cfg, 'tensorboard')
    assert [each.type for each in cfg.visualizer.vis_backends] == ['TensorboardVisBackend']


def test_the_largest_batch_is_on_the_line_of_the_measured_ones():
    tried = []

    def memory(batch):
        tried.append(batch)
        if batch > 4:
            raise torch.OutOfMemoryError
        return 1e9 + batch * 1e9

    assert largest_batch(memory, capacity=10e9) == 6
    assert tried == [1, 2, 4, 8]
    with pytest.raises(UserError, match='not even one image fits'):
        largest_batch(lambda batch: (_ for _ in ()).throw(torch.OutOfMemoryError()), capacity=1e9)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='On a CPU larger batches are no faster'):
            measured_batch(load_config('yolo11n_digits'))


def test_the_step_that_is_measured_is_a_training_step():
    model = build_model(load_config('yolo11n_digits')).train()
    losses = _training_losses(model, 2, 3, (64, 96))
    torch.stack([*losses.values()]).sum().backward()
    assert all(loss > 0 for loss in losses.values())
    assert model.backbone.stem.conv.weight.grad.abs().sum() > 0


def test_the_recipe_of_fine_tuning_never_adds_epochs():
    for epochs, expected in ((18, 18), (600, 100)):
        cfg = load_config('yolo11n_digits', {'train_cfg.max_epochs': epochs})
        start_from_weights(cfg, 'x.pth')
        assert (cfg.train_cfg.max_epochs, cfg.load_from) == (expected, 'x.pth')
        assert cfg.optim_wrapper.optimizer.lr == Config.fromfile(ROOT / RECIPE).optim_wrapper.optimizer.lr


@pytest.mark.parametrize('server', [None, 'http://127.0.0.1:5000'])
def test_mlflow_writes_a_database_or_to_a_server(tmp_path, monkeypatch, server):
    monkeypatch.setitem(training_options.LOGGERS, 'mlflow', training_options.Logger('MLflowVisBackend', 'json'))
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    if server:
        monkeypatch.setenv('MLFLOW_TRACKING_URI', server)
    cfg = load_config('yolo11n_digits', work_dir=str(tmp_path / 'run'))
    add_logger(cfg, 'mlflow')
    assert cfg.visualizer.vis_backends[-1].tracking_uri == (server or f'sqlite:///{tmp_path}/run/mlflow.db')
