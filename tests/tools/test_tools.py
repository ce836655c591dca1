"""The command line, in real processes: train, resume, test, draw, count; stock entry points; every bad input."""

import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from conftest import ROOT

pytestmark = pytest.mark.slow
TRAIN, TEST = ROOT / 'tools/train.py', ROOT / 'tools/test.py'
CONFIG = ROOT / 'configs/yolo11n_dynconv_digits.py'
SITE = Path(next(p for p in sys.path if p.endswith('site-packages')))


def options(digits: Path) -> list[str]:
    """A run of two short epochs on a few digits, without workers, in one thread's time."""
    loaders = [
        f'{loader}_dataloader.{key}={value}'
        for loader in ('train', 'val', 'test')
        for key, value in (
            ('dataset.data_root', digits),
            ('batch_size', 8),
            ('num_workers', 0),
            ('persistent_workers', False),
        )
    ]
    # Little is learnt in six iterations: no warm-up, and predictions of every score.
    quick = [
        'default_hooks.param_scheduler.warmup_mim_iter=1',
        'default_hooks.param_scheduler.warmup_epochs=0',
        'model.test_cfg.score_thr=0.000001',
    ]
    return [*loaders, *quick, 'train_cfg.max_epochs=2', 'train_cfg.val_interval=1', 'randomness.seed=0']


def predictions(prefix: Path) -> list[dict]:
    """What an evaluator was given, as it wrote it: every box, score and class of the validation set."""
    rows = json.loads(prefix.with_suffix('.bbox.json').read_text())
    assert len(rows) > 100
    return rows


@pytest.fixture(scope='module')
def trained(run, digits, tmp_path_factory):
    """A finished run: its work dir and what it printed."""
    work = tmp_path_factory.mktemp('trained')
    prefix = f'val_evaluator.outfile_prefix={work / "val"}'
    done = run(TRAIN, CONFIG, '--work-dir', work, '--cfg-options', *options(digits), prefix)
    assert done.returncode == 0, done.stderr[-3000:]
    return work, done.stdout


def losses(text: str) -> list[float]:
    return [float(v) for v in re.findall(r' loss: ([\d.]+)', text)]


def test_training_writes_checkpoints_and_says_what_next(trained):
    work, text = trained
    assert (work / 'epoch_2.pth').exists()
    config, tested = re.search(r'To test: python tools/test.py (\S+) (\S+)', text).groups()
    assert Path(tested).is_file()
    assert Config.fromfile(config).train_cfg.max_epochs == 2  # as it was trained, --cfg-options included
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=True)
    assert checkpoint['meta']['dataset_meta']['classes'] == tuple('0123456789')
    assert 'message_hub' in checkpoint


@pytest.mark.processes
def test_training_lowers_the_loss(run, digits, tmp_path):
    quick = [o for o in options(digits) if 'max_epochs' not in o and 'val_interval' not in o]
    done = run(
        TRAIN,
        CONFIG,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *quick,
        'train_cfg.max_epochs=6',
        'train_cfg.val_interval=10',
        'default_hooks.logger.interval=1',
        'log_processor.window_size=1',
        'default_hooks.param_scheduler.warmup_mim_iter=1',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    values = losses(done.stdout)
    assert len(values) == 18
    assert np.mean(values[-3:]) < 0.9 * np.mean(values[:3])


def test_test_reproduces_the_validation_predictions_exactly(run, digits, trained, tmp_path):
    work, _ = trained
    out = tmp_path / 'predictions.pkl'
    done = run(
        TEST,
        CONFIG,
        work / 'epoch_2.pth',
        '--work-dir',
        tmp_path,
        '--out',
        out,
        '--show-dir',
        'pictures',
        '--cfg-options',
        *options(digits),
        f'test_evaluator.outfile_prefix={tmp_path / "test"}',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert predictions(tmp_path / 'test') == predictions(work / 'val')
    assert out.exists()
    assert len(list(tmp_path.glob('*/pictures/*'))) == 8


def test_fused_finds_the_same(call, digits, trained, tmp_path):
    work, _ = trained
    rows = []
    for fuse in ([], ['--fuse']):
        prefix = tmp_path / f'fused{len(fuse)}'
        common = ('--work-dir', tmp_path, '--json-prefix', prefix, '--cfg-options', *options(digits))
        done = call(TEST, CONFIG, work / 'epoch_2.pth', *fuse, *common)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ('batch norms folded into convolutions' in done.stdout) == bool(fuse)
        rows.append(predictions(prefix))
    assert abs(len(rows[0]) - len(rows[1])) <= 0.01 * len(rows[0])
    # after two epochs scores are tiny and close: only the best of an image is sure to survive NMS alike
    ids = {r['image_id'] for r in rows[0]}
    best = [{i: max(r['score'] for r in part if r['image_id'] == i) for i in ids} for part in rows]
    assert best[1] == pytest.approx(best[0], rel=1e-2)


def test_test_time_augmentation_and_json(call, digits, trained, tmp_path):
    work, _ = trained
    common = ('--work-dir', tmp_path, '--cfg-options', *options(digits))
    done = call(TEST, CONFIG, work / 'epoch_2.pth', '--tta', *common)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'coco/bbox_mAP' in done.stdout
    done = call(TEST, CONFIG, work / 'epoch_2.pth', '--json-prefix', tmp_path / 'result', *common)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / 'result.bbox.json').read_text())
    assert {'image_id', 'bbox', 'score', 'category_id'} <= set(rows[0])


@pytest.mark.processes
def test_resume_goes_on_where_it_was(run, digits, trained, tmp_path):
    work, _ = trained
    shutil.copytree(work, tmp_path / 'run')
    longer = [o.replace('max_epochs=2', 'max_epochs=3') for o in options(digits)]
    done = run(TRAIN, CONFIG, '--work-dir', tmp_path / 'run', '--resume', '--cfg-options', *longer)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'resumed epoch: 2, iter: 6' in done.stdout
    assert re.findall(r'Epoch\(train\) +\[(\d)\]', done.stdout) == ['3']
    assert (tmp_path / 'run/epoch_3.pth').exists()


@pytest.mark.parametrize('package', ['mmdet', 'mmyolo'])
def test_stock_test_py_gives_the_same_predictions(run, digits, trained, tmp_path, package):
    # In a process that was opted in: what `python -m mmdyn.host enable` does at the start of the interpreter.
    work, _ = trained
    from mmdyn.host.optin import startup_line

    (tmp_path / 'sitecustomize.py').write_text(startup_line())
    done = run(
        SITE / package / '.mim/tools/test.py',
        CONFIG,
        work / 'epoch_2.pth',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *options(digits),
        f'test_evaluator.outfile_prefix={tmp_path / "test"}',
        env=dict(PYTHONPATH=str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert predictions(tmp_path / 'test') == predictions(work / 'val')


def test_det_inferencer_works_with_config_and_checkpoint(run, trained, digits, tmp_path):
    work, _ = trained
    script = (
        'import sys, mmdyn; from mmdet.apis import DetInferencer; data, config, checkpoint, out = sys.argv[1:];'
        "DetInferencer(config, checkpoint, 'cpu', scope='mmyolo', palette='random')"
        '(data, out_dir=out, pred_score_thr=0.0001, no_save_pred=False)'
    )
    done = run('-c', script, digits / 'val', CONFIG, work / 'epoch_2.pth', tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / 'vis').iterdir())) == 8
    prediction = json.loads((tmp_path / 'preds/000000.json').read_text())
    assert {'labels', 'scores', 'bboxes'} <= set(prediction)
    assert not (tmp_path / 'data').exists()  # no data set is made for it


def test_pictures_of_a_run(trained, digits, tmp_path):
    from mmdyn.analysis.ground_truth import prediction_grid
    from mmdyn.analysis.pictures import draw_curves
    from mmdyn.files import write_image
    from mmdyn.running.config_file import load_config

    work, _ = trained
    cfg = load_config(str(CONFIG), {'test_dataloader.dataset.data_root': str(digits)}, None, 'none')
    grid = prediction_grid(cfg, str(work / 'epoch_2.pth'), [0, 1, 2], columns=2)
    assert grid.shape == (640, 1280, 3)
    write_image(tmp_path / 'grid.png', grid)
    draw_curves(work, tmp_path / 'curves.png')
    for name in ('grid.png', 'curves.png'):
        assert cv2.imread(str(tmp_path / name)).std() > 10
    assert {p.name for p in tmp_path.iterdir()} == {'grid.png', 'curves.png'}


def test_amp_trains_or_says_why_not(run, digits, tmp_path):
    from mmdyn.engine.optim.wrappers import cpu_has_bf16

    done = run(
        TRAIN, CONFIG, '--amp', '--work-dir', tmp_path, '--cfg-options', *options(digits), 'train_cfg.max_epochs=1'
    )
    if torch.cuda.is_available() or cpu_has_bf16():
        assert done.returncode == 0, done.stderr[-3000:]
        assert all(np.isfinite(losses(done.stdout)))
    else:
        assert done.returncode == 1
        assert 'needs native bf16' in done.stderr


def test_get_flops_prints_the_golden_numbers(call):
    done = call(ROOT / 'tools/get_flops.py', ROOT / 'configs/yolo11n_dynconv_coco.py')
    assert done.returncode == 0, done.stderr
    assert 'parameters  4,629,336' in done.stdout
    assert 'FLOPs       6.548 G' in done.stdout


def test_get_flops_takes_the_size_of_the_config_and_refuses_what_does_not_fit(call):
    done = call(ROOT / 'tools/get_flops.py', CONFIG)
    assert 'one image of 320 x 320' in done.stdout
    assert_clean(call(ROOT / 'tools/get_flops.py', CONFIG, '--shape', 321), 'does not accept 321 x 321 pixels .*of 32')


def test_browse_dataset_draws(run, digits, tmp_path):
    done = run(
        ROOT / 'tools/browse_dataset.py',
        CONFIG,
        '--not-show',
        '--show-number',
        '2',
        '--out-dir',
        tmp_path,
        '--cfg-options',
        *options(digits),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.rglob('*.jpg'))) == 2


@pytest.mark.parametrize('tool', sorted(p.name for p in (ROOT / 'tools').glob('[a-z]*.py')))
def test_help_answers_without_importing_torch(run, tool):
    code = f'import runpy, sys; sys.argv = ["{tool}", "--help"]; sys.path.insert(0, "tools")\n'
    code += 'try: runpy.run_path(f"tools/{sys.argv[0]}", run_name="__main__")\n'
    code += 'except SystemExit: print("torch" in sys.modules)'
    done = run('-c', code)
    assert done.stdout.splitlines()[-1] == 'False', done.stderr
    assert 'example' in done.stdout


# name of the case -> arguments of train.py after the config, and what the message says
BAD = {
    'no-coco': (
        ['configs/yolo11n_dynconv_coco.py'],
        r'no annotation file at .*instances_train2017.json.*cocodataset.*digits',
    ),
    'no-config': (['configs/yolo11n_dynconf_digits.py'], r'no config file at .*Did you mean yolo11n_dynconv_digits'),
    'class-count': (
        [CONFIG, 'model.bbox_head.head_module.num_classes=7'],
        r'num_classes=7, but .* has 10 classes: .*model.bbox_head.head_module.num_classes=10',
    ),
    'unknown-type': (
        [CONFIG, 'model.backbone.type=YOLO11Backbon'],
        r"no model of type 'YOLO11Backbon'. Did you mean YOLO11Backbone",
    ),
    'unknown-conv': (
        [CONFIG, 'model.neck.downsample_cfg.type=DynamicConf'],
        r"no model of type 'DynamicConf'. Did you mean .*DynamicConv",
    ),
    'unknown-data-set': (
        [CONFIG, 'train_dataloader.dataset.type=DigitDataset'],
        r"no dataset of type 'DigitDataset'. Did you mean DigitsDataset",
    ),
    'unknown-optimizer': (
        [CONFIG, 'optim_wrapper.optimizer.type=AdamV'],
        r"no optimizer of type 'AdamV'. Did you mean Adam",
    ),
    'unknown-hook': ([CONFIG, 'default_hooks.timer.type=IterTimeHook'], r'Did you mean IterTimerHook'),
    'no-experts': ([CONFIG, 'model.backbone.downsample_cfg.num_experts=0'], r'num_experts must be at least 1, got 0'),
    'groups': (
        [CONFIG, 'model.backbone.downsample_cfg.groups=5'],
        r'groups=5 must divide in_channels=16 and out_channels=32',
    ),
    'no-checkpoint': ([CONFIG, 'load_from=none.pth'], r'no checkpoint at .*none.pth'),
    'unknown-key': ([CONFIG, 'modle.backbone.norm_eval=True'], r"modle.*: nothing reads 'modle'. Did you mean model"),
    'word-of-the-file': (
        [CONFIG, 'val_batch_size=4'],
        r"key 'val_batch_size': 'val_batch_size' is only read while the config file is parsed",
    ),
    'checkpoint-for-config': (['epoch_1.pth'], r'epoch_1.pth is not a config: --help shows the order'),
    'option-without-value': ([CONFIG, 'train_cfg'], r"--cfg-options takes KEY=VALUE, got 'train_cfg'"),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_message_and_exit_code_1(call, digits, tmp_path, name):
    (config, *extra), message = BAD[name]
    more = options(digits) if config == CONFIG else []
    done = call(TRAIN, config, '--work-dir', tmp_path, '--cfg-options', *more, *(extra or ['log_level=INFO']))
    assert_clean(done, message)
    assert not list(tmp_path.glob('*.pth'))


def assert_clean(done, message):
    assert done.returncode == 1, done.stderr[-3000:]
    assert 'Traceback' not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors[0]


def test_config_with_a_misspelled_name(call, tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = '{CONFIG}'\nlr = learning_rate\n")
    assert_clean(call(TRAIN, tmp_path / 'mine.py'), "mine.py does not load: NameError: name 'learning_rate'")


@pytest.mark.processes
def test_resume_without_and_with_a_broken_checkpoint(run, digits, tmp_path):
    once = [o.replace('max_epochs=2', 'max_epochs=1') for o in options(digits)]
    done = run(TRAIN, CONFIG, '--work-dir', tmp_path / 'new', '--resume', '--cfg-options', *once)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'to resume from: training starts at the beginning' in done.stdout
    (tmp_path / 'new/epoch_1.pth').write_bytes(b'cut')
    done = run(TRAIN, CONFIG, '--work-dir', tmp_path / 'new', '--resume', '--cfg-options', *options(digits))
    assert_clean(done, 'epoch_1.pth is not a checkpoint that loads safely')


def test_image_demo_refuses_a_checkpoint_of_another_architecture(call, digits, trained, tmp_path):
    work, _ = trained
    config = ROOT / 'configs/yolo11n_digits.py'
    done = call(
        ROOT / 'demo/image_demo.py', digits / 'val', config, work / 'epoch_2.pth', '--out-dir', tmp_path / 'out'
    )
    assert_clean(done, 'another architecture than the config')
    assert not (tmp_path / 'out').exists()
    text = tmp_path / 'text.jpg'
    text.write_text('no image')
    for path, message in ((text, 'text.jpg is not an image'), (tmp_path / 'none', 'no image, folder or video at')):
        assert_clean(call(ROOT / 'demo/image_demo.py', path, CONFIG, work / 'epoch_2.pth'), message)


def test_config_of_another_package_is_guarded_too(run, digits, trained, tmp_path):
    work, _ = trained
    done = run(
        TEST,
        ROOT / 'configs/retinanet_dynconv_r50_fpn_1x_coco.py',
        work / 'epoch_2.pth',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'test_dataloader.dataset.data_root={digits}/',
        'test_dataloader.dataset.ann_file=annotations/val.json',
        'test_dataloader.dataset.data_prefix.img=val/',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        f'test_evaluator.ann_file={digits}/annotations/val.json',
    )
    assert_clean(done, 'another architecture than the config: .*missing backbone.conv1.weight')


@pytest.mark.parametrize(
    ('launcher', 'cure'),
    [
        ('pytorch', 'torchrun starts: use tools/dist_train.sh CONFIG GPUS'),
        ('slurm', 'srun starts: use tools/slurm_train.sh PARTITION JOB CONFIG'),
        ('mpi', 'mpirun starts'),
    ],
)
def test_launcher_without_its_starter(call, tmp_path, launcher, cure):
    assert_clean(call(TRAIN, CONFIG, '--launcher', launcher, '--work-dir', tmp_path), cure)


def test_type_of_another_scope_is_named_as_such(call, tmp_path):
    done = call(
        TRAIN, ROOT / 'configs/yolo11n_digits.py', '--work-dir', tmp_path, '--cfg-options', 'default_scope=mmdet'
    )
    assert_clean(done, r"the scope of the config has no dataset of type 'DigitsDataset': set default_scope='mmyolo'")


def test_missing_annotations_of_another_package_are_named(call, tmp_path):
    done = call(TRAIN, ROOT / 'configs/retinanet_dynconv_r50_fpn_1x_coco.py', '--work-dir', tmp_path)
    assert_clean(done, 'there is no /.*instances_train2017.json')


def test_bad_checkpoints_are_refused_by_test(call, digits, trained, tmp_path):
    work, _ = trained
    text, whole = tmp_path / 'text.pth', work / 'epoch_2.pth'
    text.write_text('no checkpoint')
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(whole.read_bytes()[:-5000])
    cases = {
        (CONFIG, text): r'text.pth is not a checkpoint that loads safely: .*',
        (CONFIG, cut): r'cut.pth is not a checkpoint that loads safely: it was not written by torch.save, or it is',
        (CONFIG, tmp_path / 'none.pth'): r'no checkpoint at .*none.pth',
        (
            ROOT / 'configs/yolo11n_digits.py',
            whole,
        ): r'another architecture than the config: .*missing backbone.stage1.0',
    }
    for (config, checkpoint), message in cases.items():
        done = call(TEST, config, checkpoint, '--work-dir', tmp_path, '--cfg-options', *options(digits))
        assert_clean(done, message)


@pytest.mark.slow
def test_resuming_what_never_began_starts_from_the_weights_of_the_config(call, tmp_path):
    options = ('--resume', '--work-dir', tmp_path, '--cfg-options', 'load_from=none.pth')
    done = call(ROOT / 'tools/train.py', ROOT / 'configs/yolo11n_digits.py', *options)
    assert (done.returncode, 'no checkpoint at' in done.stderr) == (1, True), done.stderr
