"""What training does beside the network: parameter groups, learning rates, momentum, decay, accumulation, EMA."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from torch import nn
from ultralytics.utils import ROOT as ORIGINAL
from ultralytics.utils.torch_utils import ModelEMA

import mmdyn.engine
import original
from conftest import ROOT
from mmdyn.convert.key_table import PROJECTION, original_names
from mmdyn.engine import YOLOEMA

pytestmark = pytest.mark.parity

PER_EPOCH, EPOCHS, BATCH = 100, 12, 2
CONFIG = ROOT / 'configs/yolo11n_dynconv_coco.py'


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
    """Every iteration of a training of the original, of a small model on specks of 32 pixels."""
    root = tmp_path_factory.mktemp('schedule')
    content = dict(images=[], annotations=[], categories=[dict(id=0, name='speck')])
    for i in range(PER_EPOCH * BATCH):
        cv2.imwrite(str(root / f'{i}.png'), np.full((32, 32, 3), i % 256, np.uint8))
        content['images'].append(dict(id=i, file_name=f'{i}.png', width=32, height=32))
        content['annotations'].append(dict(id=i, image_id=i, category_id=0, bbox=[4, 4, 20, 20]))
    (root / 'coco.json').write_text(json.dumps(content))
    data = original.yolo_dataset(root / 'set', dict.fromkeys(('train', 'val'), (root / 'coco.json', root)))
    model = yaml.safe_load((ORIGINAL / 'cfg/models/11/yolo11.yaml').read_text())
    model['scales'] = dict(t=[0.5, 0.125, 1024])
    (root / 'yolo11t.yaml').write_text(yaml.safe_dump(model))
    rows = []

    def note(trainer):
        groups = {g['param_group']: g for g in trainer.optimizer.param_groups}
        rows.append(
            [[groups[name][key] for key in ('lr', 'momentum', 'weight_decay')] for name in ('weight', 'bn', 'bias')]
            + [[trainer.accumulate, trainer.ema.updates, trainer.ema.decay(trainer.ema.updates + 1)]]
        )

    class Noting(original.Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback('on_train_batch_end', note)

    original.train(
        data, root / 'run', trainer=Noting, model=str(root / 'yolo11t.yaml'), imgsz=32, epochs=EPOCHS, batch=BATCH,
        nbs=16, val=False, save=False, close_mosaic=0, mosaic=0,
    )  # fmt: skip
    return rows


class OneWeight(BaseModel):
    """Has what falls into each of the three groups, and costs nothing."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs, mode=None):
        return dict(loss=self.norm(self.layer(inputs)).sum())


@pytest.fixture(scope='module')
def ours(tmp_path_factory):
    """Every iteration of the COCO config's recipe, at the same batch and length."""
    cfg = Config.fromfile(CONFIG)
    cfg.default_hooks.param_scheduler.nominal_batch_size = 16
    rows = []

    class Note(Hook):
        priority = 'VERY_LOW'

        def after_train_iter(self, runner, *args, **kwargs):
            average = next(h for h in runner.hooks if isinstance(h, mmdyn.engine.YOLOEMAHook)).ema_model
            wrapper = runner.optim_wrapper
            rows.append(
                [[g[key] for key in ('lr', 'momentum', 'weight_decay')] for g in wrapper.optimizer.param_groups]
                + [[wrapper.accumulate, average.steps.item() - 1, average.decay(average.steps.item())]]
            )

    runner = Runner(
        model=OneWeight(),
        work_dir=str(tmp_path_factory.mktemp('ours')),
        train_dataloader=torch.utils.data.DataLoader(
            [dict(inputs=torch.rand(1)) for _ in range(PER_EPOCH * BATCH)], BATCH
        ),
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=cfg.optim_wrapper,
        default_hooks=dict(param_scheduler=cfg.default_hooks.param_scheduler, checkpoint=None),
        custom_hooks=[hook for hook in cfg.custom_hooks if hook['type'] == 'YOLOEMAHook'] + [Note()],
        default_scope='mmyolo',
        log_level='ERROR',
    )
    runner.train()
    return rows


def test_every_iteration(ours, theirs):
    assert len(ours) == len(theirs) == PER_EPOCH * EPOCHS
    for iteration in (0, 1, 100, 299, 300, 301, 1000, len(ours) - 1, *range(len(ours))):
        np.testing.assert_allclose(np.array(ours[iteration]), np.array(theirs[iteration]), rtol=1e-6, atol=1e-9)
    rates = np.array(theirs)[:, :3, 0]
    assert rates[0, 2] == 0.1  # the test sees the warm-up of the biases,
    assert rates[-1, 0] == pytest.approx(0.01 * (0.99 / EPOCHS + 0.01))  # the linear decay,
    assert theirs[-1][3][0] == 8  # and the accumulation


@pytest.mark.parametrize('variant', original.VARIANTS)
def test_parameter_groups(pair, variant, tmp_path):
    model, converted, cfg, *_ = pair('n', variant, 3)
    trainer = original.Trainer.__new__(original.Trainer)
    optimizer = trainer.build_optimizer(model, name='SGD', lr=0.01, momentum=0.937, decay=5e-4)
    names = {id(p): name for name, p in model.named_parameters()}
    expected = {
        g['param_group']: ({names[id(p)] for p in g['params']} - {PROJECTION}, g['weight_decay'], g['nesterov'])
        for g in optimizer.param_groups
    }
    wrapper = cfg.optim_wrapper.to_dict()
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(type=wrapper.pop('constructor'), optim_wrapper_cfg=wrapper))
    ours = {id(p): name for name, p in converted.named_parameters()}
    to_original = original_names(converted.state_dict())
    for group, name in zip(constructor(converted).optimizer.param_groups, ('weight', 'bn', 'bias'), strict=True):
        found = {to_original[ours[id(p)]] for p in group['params']}
        assert (found, group['weight_decay'], group['nesterov']) == expected[name]


def test_average_of_weights():
    """The same weights, averaged by both."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    theirs, ours = ModelEMA(model), YOLOEMA(model, momentum=0.0001, gamma=2000, update_buffers=True)
    for _ in range(30):
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean, model[1].running_var):
                tensor.add_(torch.randn(tensor.shape))
        theirs.update(model), ours.update_parameters(model)
        for name, value in theirs.ema.state_dict().items():
            torch.testing.assert_close(ours.module.state_dict()[name], value, rtol=1e-6, atol=1e-7)
