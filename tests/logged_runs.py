"""What the runs of a comparison leave, without training: configs and scalars in MMEngine's own form."""

import json

from mmengine.config import Config

from conftest import ROOT
from mmdyn.ablation.runs import LOG_NAME, Run

TOOL, TRAIN = ROOT / 'tools/ablate.py', ROOT / 'tools/train.py'
STATIC, DYNAMIC = ROOT / 'configs/yolo11n_digits.py', ROOT / 'configs/yolo11n_dynconv-bn_digits.py'


def log_run(work_dir, arm, seed, attempts, printed='', config=STATIC, epochs=4):
    """Write what a run leaves: the scalars of every attempt, the config, what was printed."""
    run = Run(arm, seed, work_dir / arm / f'seed_{seed}')
    run.folder.mkdir(parents=True)
    if not run.config.exists():
        cfg = Config.fromfile(config)
        cfg.merge_from_dict({'train_cfg.max_epochs': epochs})
        cfg.dump(run.config)
    for i, lines in enumerate(attempts):
        folder = run.folder / f'2026010{i + 1}_000000/vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(json.dumps(line) for line in lines) + '\n')
    (run.folder / LOG_NAME).write_text(printed)
    return run


def trained(epoch, loss=1.0, seconds=0.5):
    return dict(loss=loss, time=seconds, epoch=epoch, iter=10 * epoch, step=10 * epoch)


def validated(epoch, ap):
    return {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': ap + 0.1, 'time': 9.0, 'step': epoch}


def curve(*aps, **kwargs):
    return [[line for e, ap in enumerate(aps, 1) for line in (trained(e, **kwargs), validated(e, ap))]]
