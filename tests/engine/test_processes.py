"""Training by several processes: what each of them holds, what is saved, and that its AP is that of the checkpoint."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.processes]
SIZES = [(96, 64), (64, 96), (96, 96), (48, 96), (96, 80)]  # width, height: five aspect ratios
CONFIG = f"""
_base_ = '{ROOT}/configs/yolo11n_dynconv-bn_digits.py'
custom_imports = dict(imports=['mmdyn', 'dump_states'])
norm = dict(type='BN', momentum=0.2, eps=0.001)
head = dict(head_module=dict(norm_cfg=norm))
model = dict(backbone=dict(norm_cfg=norm), neck=dict(norm_cfg=norm), bbox_head=head)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.001))
custom_hooks = [*_base_.custom_hooks, dict(type='DumpStates')]
"""
# The states at every validation, by rank, once with the average in place and once with the trained weights.
HOOK = """
from pathlib import Path
import torch
from mmengine.dist import get_rank
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class DumpStates(Hook):
    priority = 'LOWEST'

    def before_val_epoch(self, runner):
        ema = next(h for h in runner.hooks if isinstance(h, EMAHook))
        states = dict(model=ema.ema_model.module.state_dict(), average=ema.src_model.state_dict())  # swapped by now
        torch.save(states, Path(runner.work_dir, f'rank_{get_rank()}.pth'))
"""


def write_set(root: Path, split: str, count: int) -> None:
    """Bright squares on noise, in images of several shapes; large, so that twenty steps find some."""
    rng = np.random.default_rng(len(split))
    images, annotations = [], []
    (root / split).mkdir(parents=True)
    for i in range(count):
        width, height = SIZES[i % len(SIZES)]
        image = rng.integers(0, 120, (height, width, 3), np.uint8)
        side = int(rng.integers(32, 46))
        x, y = int(rng.integers(width - side)), int(rng.integers(height - side))
        image[y : y + side, x : x + side] = 255
        cv2.imwrite(str(root / split / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', width=width, height=height))
        annotations.append(dict(id=i + 1, image_id=i, category_id=0, bbox=[x, y, side, side]))
    (root / 'annotations').mkdir(exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=[dict(id=c, name=str(c)) for c in range(10)])
    (root / f'annotations/{split}.json').write_text(json.dumps(content))


def figure(text: str) -> float:
    return float(re.findall(r'coco/bbox_mAP: ([\d.]+)', text)[-1])


def predictions(prefix: Path) -> list[tuple]:
    """Image, class, score and box of everything that an evaluator was given."""
    rows = json.loads(Path(f'{prefix}.bbox.json').read_text())
    return sorted((r['image_id'], r['category_id'], r['score'], *r['bbox']) for r in rows)


@pytest.fixture(scope='module')
def trained(run, tmp_path_factory):
    """Twenty steps by two processes: the folder and what was printed."""
    folder = tmp_path_factory.mktemp('processes')
    write_set(folder / 'data', 'train', 80)
    write_set(folder / 'data', 'val', 23)  # no multiple of the batch, nor of the processes
    (folder / 'config.py').write_text(CONFIG)
    (folder / 'dump_states.py').write_text(HOOK)
    loaders = [
        f'{split}_dataloader.{key}={value}'
        for split in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False), ('dataset.data_root', folder / 'data'))
    ]
    options = ['--cfg-options', *loaders, 'train_dataloader.batch_size=2', 'val_dataloader.batch_size=4']
    options += ['train_cfg.max_epochs=1', 'randomness.seed=0', 'default_hooks.param_scheduler.warmup_epochs=0']
    options += ['model.test_cfg.score_thr=0.000001', f'val_evaluator.outfile_prefix={folder / "val"}']
    options += ['default_hooks.param_scheduler.nominal_batch_size=4']
    options += ['test_dataloader.batch_size=4', 'custom_hooks.0.gamma=1', 'custom_hooks.0.momentum=0.3']
    launch = ('-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=29631')
    environment = dict(OMP_NUM_THREADS='1', PYTHONPATH=str(folder))
    train = (ROOT / 'tools/train.py', folder / 'config.py', '--launcher', 'pytorch', '--work-dir', folder / 'work')
    done = run(*launch, *train, *options, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, options, done.stdout


def test_processes_agree_in_model_and_average(trained):
    folder, *_ = trained
    first, second = (torch.load(folder / f'work/rank_{rank}.pth', weights_only=True) for rank in (0, 1))
    for kind in ('model', 'average'):
        statistics = [k for k in first[kind] if k.endswith(('running_mean', 'running_var'))]
        assert len(statistics) == 162
        assert not [k for k, v in first[kind].items() if not torch.equal(v, second[kind][k])]
    saved = torch.load(folder / 'work/epoch_1.pth', weights_only=True)
    assert saved['meta']['iter'] == 20
    for key, value in first['average'].items():
        assert torch.equal(saved['state_dict'][key], value), key
        assert torch.equal(saved['ema_state_dict'][f'module.{key}'], first['model'][key]), key


def test_ap_of_two_processes_is_that_of_their_checkpoint(trained, run, tmp_path):
    folder, options, printed = trained
    test = (ROOT / 'tools/test.py', folder / 'config.py', folder / 'work/epoch_1.pth', '--work-dir', tmp_path)
    prefix = f'test_evaluator.outfile_prefix={tmp_path / "test"}'
    done = run(*test, *options, prefix, env=dict(PYTHONPATH=str(folder)))
    assert done.returncode == 0, done.stderr[-3000:]
    assert figure(done.stdout + done.stderr) == figure(printed) > 0
    assert len(predictions(tmp_path / 'test')) > 1000
    # a convolution of two images may round another way than one of three
    np.testing.assert_allclose(predictions(tmp_path / 'test'), predictions(folder / 'val'), rtol=1e-4, atol=1e-3)
