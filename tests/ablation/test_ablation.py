"""Comparisons: what may be compared, how runs are counted, what the statistics say, and a sweep of real runs."""

import math
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from mmengine.config import Config
from scipy import stats

from conftest import ROOT
from logged_runs import DYNAMIC, STATIC, TOOL, TRAIN, curve, log_run
from mmdyn.ablation import plots
from mmdyn.ablation.commands import command_of
from mmdyn.ablation.comparison import compare, joint_p, paired_difference, spread
from mmdyn.ablation.fairness import check_comparable, config_differences
from mmdyn.ablation.plan import make_plan, record
from mmdyn.ablation.report import COLUMNS, describe, write_report
from mmdyn.ablation.runs import Run, read_run
from mmdyn.ablation.slurm import write_slurm
from mmdyn.ablation.speed import measure_speed
from mmdyn.ablation.sweep import _share, locked, run_all
from mmdyn.errors import UserError


def altered(**options) -> Config:
    cfg = Config.fromfile(DYNAMIC)
    cfg.merge_from_dict(options)
    return cfg


UNEQUAL = {
    'epochs': ({'train_cfg.max_epochs': 3}, r'train_cfg.max_epochs: 18 in a, 3 in b'),
    'batch': ({'train_dataloader.batch_size': 4}, r'train_dataloader.batch_size: 8 in a, 4 in b'),
    'training set': ({'train_dataloader.dataset.ann_file': 'x.json'}, r"ann_file: 'annotations/train.json' in a"),
    'validation set': ({'val_dataloader.dataset.data_root': 'x/'}, r"val_dataloader.dataset.data_root: 'data/digits/'"),
    'augmentation': ({'train_dataloader.dataset.pipeline.2.pad_val': 0.0}, r'pipeline.2.pad_val: 114.0 in a, 0.0 in b'),
    'start': ({'load_from': 'start.pth'}, r"load_from: None in a, 'start.pth' in b"),
    'precision': ({'amp': True}, r"amp: 'not set' in a, True in b"),
    'accumulation': ({'optim_wrapper.accumulative_counts': 8}, r'accumulative_counts'),
    'nominal batch': ({'default_hooks.param_scheduler.nominal_batch_size': 64}, r'nominal_batch_size: None in a, 64'),
    'pretrained': (
        {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='x')},
        r"init_cfg.checkpoint.*'x' in b",
    ),
    'pretrained, one of several': (
        {'model.backbone.init_cfg': [dict(type='Pretrained', checkpoint='x')]},
        r"init_cfg.0.checkpoint.*'x' in b",
    ),
    'mosaic closed later': ({'custom_hooks.1.num_last_epochs': 0}, r'custom_hooks: .*10.* in a, .*0.* in b'),
    'no moving average': ({'custom_hooks': []}, r'custom_hooks: .*EMA.* in a, \[\] in b'),
    'preprocessing': (
        {'model.data_preprocessor': dict(std=[1.0, 1.0, 1.0])},
        r'model.data_preprocessor.std.*1.0.* in b',
    ),
    'kind of half precision': ({'optim_wrapper.dtype': 'float16'}, r"optim_wrapper.dtype: 'not set' in a, 'float16'"),
    'resumed': ({'resume': True}, r'resume: False in a, True in b'),
    'workers, which draw the data': ({'train_dataloader.num_workers': 7}, r'train_dataloader.num_workers: 2 in a, 7'),
    'classes': ({'model.bbox_head.head_module.num_classes': 3}, r'num_classes: 10 in a, 3 in b'),
}


@pytest.mark.parametrize(('options', 'message'), UNEQUAL.values(), ids=UNEQUAL)
def test_unequal_data_or_budget_is_refused_by_field(options, message):
    with pytest.raises(UserError, match=message):
        check_comparable({'a': altered(), 'b': altered(**options)})


@pytest.mark.parametrize(('count', 'more'), [(5, None), (6, '  and 1 more'), (8, '  and 3 more')])
def test_of_many_fields_five_are_shown(count, more):
    options = {f'train_dataloader.dataset.key{i}': i for i in range(count)}
    with pytest.raises(UserError) as error:
        check_comparable({'a': altered(), 'b': altered(**options)})
    lines = str(error.value).splitlines()
    assert sum('train_dataloader.dataset.key' in line for line in lines) == 5
    assert [line for line in lines if line.endswith(' more')] == ([more] if more else [])


@pytest.mark.parametrize(
    'options',
    [
        {'model.backbone.downsample_cfg.conv_cfg.num_experts': 8},
        {'optim_wrapper.optimizer.lr': 0.1},
        {'train_dataloader.pin_memory': True, 'train_dataloader.prefetch_factor': 3},
        {'default_hooks.logger.interval': 1, 'visualizer.vis_backends': [dict(type='TensorboardVisBackend')]},
        {'custom_hooks': [*altered().custom_hooks, dict(type='TemperatureHook')]},
    ],
    ids=['model', 'recipe', 'memory', 'logging', 'training aid'],
)
def test_what_is_compared_may_differ(options):
    check_comparable({'a': altered(), 'b': altered(**options)})


def test_what_is_not_set_is_the_default():
    bare = altered()
    for key in ('load_from', 'resume'):
        bare.pop(key)
    check_comparable({'a': altered(), 'b': bare})
    assert config_differences(altered(), bare) == {}


def test_differences_are_the_same_from_both_sides():
    static, dynamic = Config.fromfile(STATIC), altered()
    found = config_differences(static, dynamic)
    assert found == {key: (b, a) for key, (a, b) in config_differences(dynamic, static).items()}
    assert found['model.backbone.downsample_cfg.conv_cfg.num_experts'] == ('not set', 4)
    assert all(key.startswith('model.') for key in found)
    assert config_differences(static, static) == {}


def test_a_folder_is_one_comparison(tmp_path):
    """Arms and seeds can be added; another config of a name, or one that is not comparable, cannot."""
    record(make_plan([STATIC], range(1), tmp_path))
    frozen = (tmp_path / 'yolo11n_digits/config.py').read_text()
    plan = make_plan([STATIC, DYNAMIC], range(2), tmp_path)
    assert [(r.arm, r.seed) for r in plan.runs()] == [(a, s) for s in (0, 1) for a in (STATIC.stem, DYNAMIC.stem)]
    assert not (tmp_path / DYNAMIC.stem).exists()  # planning writes nothing
    record(plan)
    with pytest.raises(UserError, match=r'another yolo11n_digits: train_cfg.max_epochs was 18 there and is 2 now'):
        make_plan([STATIC], range(1), tmp_path, {'train_cfg.max_epochs': 2})
    with pytest.raises(
        UserError, match=r'cannot be compared.*\n.*train_dataloader.batch_size: 16 in yolo11n_bccd, 8 in'
    ):
        make_plan([ROOT / 'configs/yolo11n_bccd.py'], range(1), tmp_path)
    with pytest.raises(UserError, match=r'two configs have the name yolo11n_digits'):
        make_plan([STATIC, STATIC], range(1), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['plan.json', 'yolo11n_digits', 'yolo11n_dynconv-bn_digits']
    assert (tmp_path / 'yolo11n_digits/config.py').read_text() == frozen
    record(make_plan([STATIC], range(1), tmp_path, {'default_hooks.logger.interval': 7}))
    assert Config.fromfile(tmp_path / 'yolo11n_digits/config.py').default_hooks.logger.interval == 7
    (tmp_path / 'yolo11n_digits/config.py').write_text(frozen)
    assert 'seed' not in Config.fromfile(tmp_path / 'yolo11n_digits/config.py').randomness


def test_the_interval_is_that_of_the_paired_t_test():
    ours, theirs = {0: 0.41, 1: 0.45, 2: 0.40, 5: 0.9}, {0: 0.40, 1: 0.41, 2: 0.41, 4: 0.1}
    found = paired_difference(ours, theirs)
    low, high = stats.ttest_rel([0.41, 0.45, 0.40], [0.40, 0.41, 0.41]).confidence_interval(0.95)
    assert (found.low, found.high, found.pairs) == (pytest.approx(low), pytest.approx(high), 3)
    assert found.mean == pytest.approx((0.01 + 0.04 - 0.01) / 3)
    assert found.verdict == 'no difference shown'
    # equal to the last digit of a rounded AP, which is no proof of an equal difference
    assert paired_difference({0: 0.412, 1: 0.452}, {0: 0.411, 1: 0.451}).verdict == 'no difference shown'
    above = paired_difference({0: 0.5, 1: 0.51}, {0: 0.1, 1: 0.11001})
    below = paired_difference({0: 0.1, 1: 0.11001}, {0: 0.5, 1: 0.51})
    assert [d._replace(p=0.04).verdict for d in (above, below)] == ['better', 'worse']
    assert [above._replace(p=p).verdict for p in (0.06, math.nan)] == ['only alone'] * 2


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_joint_p_of_a_single_arm_is_that_of_the_paired_t_test():
    control, arm = (0.520, 0.547, 0.524, 0.6), (0.527, 0.558, 0.539, 0.6)
    expected = stats.ttest_rel(arm, control).pvalue
    assert joint_p([by_seed(*arm)], by_seed(*control)) == [pytest.approx(expected, abs=1e-3)]


def test_joint_p_is_how_often_chance_alone_differs_as_much():
    """Against drawing: arms without any difference, and how often one of them is as far from the control."""
    seeds, arms = 3, 5
    rng = np.random.default_rng(1)
    table = rng.normal(size=(arms + 1, seeds)) + np.array([[5.0, 0, 9]]) + np.array([[0.0, 3, 0, 1, -2, 0]]).T
    found = joint_p([by_seed(*row) for row in table[1:]], by_seed(*table[0]))

    def statistics(x):  # (draws, arms + 1, seeds)
        left = x - x.mean(1, keepdims=True) - x.mean(2, keepdims=True) + x.mean((1, 2), keepdims=True)
        deviation = np.sqrt((left**2).sum((1, 2)) / (arms * (seeds - 1)))
        return np.abs(x[:, 1:].mean(2) - x[:, :1].mean(2)) / deviation[:, None]

    chance = statistics(rng.normal(size=(200_000, arms + 1, seeds))).max(1)
    expected = [(chance >= t).mean() for t in statistics(table[None])[0]]
    assert found == pytest.approx(expected, abs=0.004)
    assert min(found) < 0.01 < 0.5 < max(found)


def test_joint_p_leaves_out_what_lacks_a_seed_and_is_the_same_each_time():
    control, arm, noise = by_seed(0.52, 0.527, 0.524), by_seed(0.527, 0.538, 0.539), by_seed(0.521, 0.557, 0.55)
    first, none, second = joint_p([arm, {0: 0.5, 2: 0.6}, noise], control)
    assert math.isnan(none)
    assert [first, second] == joint_p([arm, noise], control)
    assert first > joint_p([arm], control)[0]


@pytest.mark.parametrize(
    ('arms', 'control'),
    [([(0.5, 0.6)], ()), ([()], (0.5, 0.6)), ([], (0.5, 0.6)), ([(0.5,)], (0.4,)), ([(0.5, 0.6)], (0.4, 0.5))],
    ids=['no control', 'no seed', 'no arm', 'one seed', 'equal differences'],
)
def test_without_a_spread_there_is_no_p(arms, control):
    found = joint_p([by_seed(*arm) for arm in arms], by_seed(*control))
    assert len(found) == len(arms)
    assert all(map(math.isnan, found))


@pytest.mark.parametrize(('seeds', 'mean'), [([], math.nan), ([3], 0.25)])
def test_too_few_pairs_have_no_interval(seeds, mean):
    found = paired_difference(dict.fromkeys(seeds, 0.5), dict.fromkeys(seeds, 0.25))
    assert (found.mean, found.low) == (pytest.approx(mean, nan_ok=True), pytest.approx(math.nan, nan_ok=True))
    assert (found.pairs, found.verdict) == (len(seeds), 'one pair: no interval' if seeds else 'no pair')
    assert math.isnan(spread([0.5][: len(seeds)])[1])


# ---- runs, from logs in MMEngine's own form ----


def test_a_run_is_read(tmp_path):
    routed = {'routing/backbone.stage1.0.conv/entropy': 0.75, 'routing/backbone.stage1.0.conv/use_0': 0.5, 'step': 4}
    attempts = curve(0.1, 0.3, 0.2, 0.25)
    attempts[0].append(routed)
    found = read_run(log_run(tmp_path, 'a', 0, attempts))
    assert (found.done, found.final, found.best, found.attempts) == (True, 0.25, 0.3, 1)
    assert found.seconds == 0.5 * 40
    assert found.routing == {'backbone.stage1.0.conv': {'entropy': 0.75, 'use_0': 0.5}}


def test_a_resumed_run_counts_what_it_repeated_once(tmp_path):
    first, second = curve(0.1, 0.9)[0], curve(0.1, 0.2, 0.3, 0.4)[0][2:]
    run = log_run(tmp_path, 'a', 0, [first, second])
    with (run.folder / '20260101_000000/vis_data/scalars.json').open('a') as log:
        log.write('{"loss": 1.0, "ti')  # killed while writing
    found = read_run(run)
    assert (found.done, found.attempts, found.iterations) == (True, 2, 40)
    assert found.ap == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


BROKEN = {
    'diverged': (curve(0.1, 0.0, 0.0, 0.0, loss=math.nan), '', 'the loss is nan from epoch 1 on'),
    'stopped': (
        curve(0.1, 0.2),
        'Traceback\n  File\nRuntimeError: no memory\n\n',
        'epoch 2 of 4: RuntimeError: no memory',
    ),
    'killed': (
        curve(0.1, 0.2),
        '01/02 03:04:05 - mmengine - INFO - Saving checkpoint at 2 epochs\n',
        'ended in epoch 2 of 4: it was stopped',
    ),
    'no boxes': (curve(-1.0, -1.0, -1.0, -1.0), '', 'an AP of -1: the validation set has no boxes'),
    'refused': ([], 'error: no such data set\n', 'ended in epoch 0 of 4: error: no such data set'),
}


@pytest.mark.parametrize(('attempts', 'printed', 'message'), BROKEN.values(), ids=BROKEN)
def test_an_unfinished_run_says_why(tmp_path, attempts, printed, message):
    found = read_run(log_run(tmp_path, 'a', 0, attempts, printed))
    assert not found.done
    assert message in found.error


@pytest.fixture
def folder(tmp_path):
    """Three seeds of three arms, two runs of which are not done."""
    for seed, (a, b) in enumerate([(0.40, 0.45), (0.42, 0.46), (0.41, 0.47)]):
        log_run(tmp_path, 'yolo11n_digits', seed, curve(0.1, 0.2, 0.3, a))
        log_run(tmp_path, 'yolo11n_dynconv-bn_digits', seed, curve(0.1, 0.2, 0.3, b), config=DYNAMIC)
    log_run(tmp_path, '<b>_digits', 0, curve(0.1, 0.2, 0.3, 0.2), config=DYNAMIC)
    log_run(tmp_path, '<b>_digits', 1, curve(0.1), 'MemoryError: <script>\n', config=DYNAMIC)
    log_run(tmp_path, '<b>_digits', 2, curve(0.9, 0.9, 0.9, 0.9, loss=math.inf), config=DYNAMIC)
    return tmp_path


def test_what_failed_is_named_and_not_averaged(folder):
    found = compare(folder, [STATIC.stem, DYNAMIC.stem], rounds=0)
    assert [arm.name for arm in found.arms] == [STATIC.stem, DYNAMIC.stem, '<b>_digits']
    control, dynamic, broken = found.arms
    assert spread(dynamic.final) == (pytest.approx(0.46), pytest.approx(0.01))
    assert dynamic.difference.mean == pytest.approx(0.05)
    assert (dynamic.difference.verdict, dynamic.difference.pairs) == ('better', 3)
    assert (broken.final, broken.difference.pairs) == ([0.2], 1)
    assert control.difference is None
    assert dynamic.cost.parameters - control.cost.parameters == 4598390 - 2591774
    assert {(r.run.arm, r.run.seed) for r in found.missing} == {('<b>_digits', 1), ('<b>_digits', 2)}
    report = write_report(found, folder)['report.md'].read_text()
    assert '- <b>_digits, seed 1: ended in epoch 1 of 4: MemoryError: <script>' in report
    assert '- <b>_digits, seed 2: the loss is inf from epoch 1 on' in report
    assert re.search(r'<b>_digits \| 0.200 \| – \| 1 of 3 \| -0.200 \| – \| – \| – \| one pair: no interval', report)
    assert re.search(
        r'dynconv-bn_digits \| 0.460 \| 0.010 \| 3 of 3 \| \+0.050 \| \+0.0\d+ to \+0.0\d+, n = 3 \| 0.0\d+ \| 0.013 '
        r'\| better',
        report,
    )


def test_runs_that_never_started_are_missing(folder):
    found = compare(folder, [STATIC.stem, DYNAMIC.stem], rounds=0, seeds=range(4))
    missing = {(r.run.arm, r.run.seed): r.error for r in found.missing}
    assert {missing[STATIC.stem, 3], missing[DYNAMIC.stem, 3]} == {'not started'}
    assert [run.run.seed for run in found.control.runs] == [0, 1, 2, 3]
    assert '| 3 of 4 |' in write_report(found, folder)['report.md'].read_text()


def test_the_page_needs_nothing_else_and_escapes_names(folder):
    files = write_report(compare(folder, [STATIC.stem], rounds=3), folder)
    page = files['report.html'].read_text()
    assert len(re.findall(r'<td>[\d.]+ ms \(\d\.\d\d\)</td>', page)) == 2 * 3  # step and latency of every arm
    assert not re.search(r'(src|href)="(?!#)', page)
    assert '<script>' not in page
    assert page.count('<tr class="better">') == 1
    assert '&lt;b&gt;_digits' in page
    pictures = re.findall(r'<svg.*?</svg>', page, re.S)
    assert len(pictures) == 3  # nothing was logged of routing
    for picture in pictures:
        ET.fromstring(picture)
    assert page.count('<th>') >= len(COLUMNS)


def test_numbers_are_kept_as_they_are(folder):
    import csv

    files = write_report(compare(folder, [STATIC.stem], rounds=0), folder)
    with files['summary.csv'].open() as file:
        rows = {row['config']: row for row in csv.DictReader(file)}
    assert float(rows[DYNAMIC.stem]['ap']) == pytest.approx(0.46)
    assert (rows['<b>_digits']['seeds'], rows['<b>_digits']['missing']) == ('1', '2')
    with files['runs.csv'].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 7 * 4 + 1 + 4
    assert {line['finished'] for line in lines if float(line['ap']) == 0.9} == {'False'}


def test_colours_and_lines_tell_all_arms_apart():
    count = 3 * len(plots.COLOURS)
    assert len({(plots.colour(i), plots.line(i)) for i in range(count)}) == count
    assert [i for i in range(count) if plots.colour(i) == plots.COLOURS[0]] == [0]


def test_the_recipe_is_stated_as_it_is(folder):
    (logged,) = curve(0.1, 0.2, 0.3, 0.4)
    log_run(folder, 'fast', 0, [logged[:4], logged[4:]], config=DYNAMIC)
    cfg = Config.fromfile(folder / 'fast/config.py')
    cfg.optim_wrapper.optimizer.lr = 0.5
    cfg.dump(folder / 'fast/config.py')
    alone, sentences = (' '.join(describe(compare(folder, [n], 0))) for n in (STATIC.stem, 'fast'))
    assert 'AdamW at a rate of 0.002 in the control; other arms have' in alone
    assert 'Resumed, with different random numbers after that: fast seed 0.' in sentences
    found = compare(folder, [STATIC.stem], 0)
    same = ' '.join(describe(found._replace(arms=found.arms[:2])))
    assert 'a batch of 8. AdamW at a rate of 0.002.' in same
    assert 'resumed' not in same
    found.cfg.default_hooks.param_scheduler.nominal_batch_size = 64
    assert 'a batch of 8, gradients summed to 64.' in ' '.join(describe(found))


class Layer(torch.nn.Conv2d):
    """A network of one layer, which may refuse to be trained, or have no gradient."""

    def __init__(self, refuses: bool = False, frozen: bool = False) -> None:
        super().__init__(3, 4, 3)
        self.refuses = refuses
        self.requires_grad_(not frozen)

    def forward(self, images, samples, mode):
        if self.training and self.refuses:
            raise RuntimeError('it needs boxes')
        return dict(maps=[super().forward(images)])


def test_speed_is_of_one_image_and_of_a_training_batch():
    models = dict(plain=Layer(), refuses=Layer(refuses=True), frozen=Layer(frozen=True))
    found = measure_speed(models, (128, 128), 5, batch=64, amp=False)
    assert found['plain'].step > 5 * found['plain'].latency > 0
    assert all(math.isnan(found[name].step) and found[name].latency > 0 for name in ('refuses', 'frozen'))
    assert all(p.grad is None for p in models['plain'].parameters())
    assert all(map(math.isnan, measure_speed(models, (64, 64), 0, 1, False)['plain']))


def test_names_are_shortened_to_what_differs(folder):
    found = compare(folder, [STATIC.stem, DYNAMIC.stem], rounds=0)
    assert plots.labels(found._replace(arms=found.arms[:2])) == ['yolo11n_digits', 'dynconv-bn']


def test_runs_that_failed_are_in_no_curve(folder):
    found = compare(folder, [STATIC.stem], rounds=0)
    alone = found._replace(arms=tuple(a._replace(runs=tuple(a.done)) for a in found.arms))
    assert plots.curves(found) == plots.curves(alone)


def test_folders_that_are_no_runs_are_left_alone(folder):
    (folder / STATIC.stem / 'seed_0').rename(folder / STATIC.stem / 'seed_0_old')
    found = compare(folder, [STATIC.stem], rounds=0)
    assert [run.run.seed for run in found.control.runs] == [1, 2]


@pytest.mark.parametrize(
    ('visible', 'gpus', 'expected'), [('2,3', 2, ['2', '3', '2']), (None, 2, ['0', '1', '0']), (None, 0, None)]
)
def test_runs_at_a_time_share_what_the_user_gave(monkeypatch, visible, gpus, expected):
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    else:
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    shares = [_share(place, 3) for place in range(3)]
    if expected:
        assert [share['CUDA_VISIBLE_DEVICES'] for share in shares] == expected
    else:
        assert {share['OMP_NUM_THREADS'] for share in shares} == {str(max(1, len(os.sched_getaffinity(0)) // 3))}
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    assert 'OMP_NUM_THREADS' not in _share(0, 3)
    assert _share(0, 1) == {}


UNSUITED = {
    'iterations': ("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=9)", 'number of epochs'),
    'evaluator': ("val_evaluator = dict(_delete_=True, type='mmdet.VOCMetric')", r'scored by .*VOCMetric'),
    'model': ("model = dict(backbone=dict(widen_factor='wide'))", 'the config does not build'),
    'no validation': ('train_cfg = dict(val_begin=19)', 'never validated: train_cfg.val_begin is 19, max_epochs 18'),
    'name of AP': ("val_evaluator = dict(prefix='mine')", r"'DatasetCocoMetric': 'mine'.*prefix is None or 'coco'"),
    'no log': ("visualizer = dict(vis_backends=[dict(type='TensorboardVisBackend')])", 'has no LocalVisBackend'),
    'cost': ('test_pipeline = []\nval_dataloader = dict(dataset=dict(pipeline=[dict(scale=(321, 321))]))', '321 x 321'),
}


@pytest.mark.parametrize(('line', 'message'), UNSUITED.values(), ids=UNSUITED)
def test_what_cannot_be_compared_is_refused_before_training(tmp_path, line, message):
    (tmp_path / 'other.py').write_text(f"_base_ = '{STATIC}'\n{line}\n")
    with pytest.raises(UserError, match=message):
        make_plan([tmp_path / 'other.py'], range(1), tmp_path / 'w')


def test_mixed_precision_is_left_to_the_machine_that_trains(tmp_path):
    plan = make_plan([STATIC], range(1), tmp_path, amp=True)
    record(plan)
    assert '--amp' in command_of(plan.runs()[0], TRAIN)
    assert Config.fromfile(plan.runs()[0].config).optim_wrapper.type == 'YOLOOptimWrapper'
    with pytest.raises(UserError, match='amp was True there and is'):
        make_plan([STATIC], range(1), tmp_path)


# ---- real processes ----

STAND_IN = """
import json, os, signal, sys
from pathlib import Path

work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
(work / 'begun').touch()
if 'killed' in str(work):
    os.kill(os.getpid(), signal.SIGKILL)
log = work / '20260101_000000/vis_data/scalars.json'
log.parent.mkdir(parents=True)
log.write_text(json.dumps({'coco/bbox_mAP': 0.5, 'step': 18}))
"""


@pytest.mark.slow
def test_what_cannot_run_does_not_stop_the_others(tmp_path, capfd):
    """A run that another process has, one whose loss is no number, one that is killed; and one that is fine."""
    for name in ('held', 'killed', 'fine', 'diverged'):
        (tmp_path / f'{name}.py').write_text(f"_base_ = '{STATIC}'\n")
    (tmp_path / 'tool.py').write_text(STAND_IN)
    plan = make_plan([tmp_path / f'{n}.py' for n in ('held', 'killed', 'fine', 'diverged')], [0], tmp_path / 'w')
    held, killed, fine, diverged = plan.runs()
    log_run(plan.work_dir, 'diverged', 0, curve(0.1, loss=math.nan))
    (plan.work_dir / 'diverged/config.py').unlink()
    with locked(held.folder):
        failed = run_all(plan, tmp_path / 'tool.py', jobs=2)
    assert set(failed) == {held, killed, diverged}
    assert read_run(fine).done
    assert [(r.folder / 'begun').exists() for r in plan.runs()] == [False, True, True, False]
    said = capfd.readouterr().out
    assert re.search(
        rf'held, seed 0 failed: another sweep, or a run that it started, uses .*process {os.getpid()} on ', said
    )
    assert re.search(r'killed, seed 0 failed: ended in epoch 0 of 18: ended by SIGKILL', said)
    assert re.search(
        r'diverged, seed 0 failed: the loss is nan from epoch 1 on; remove its folder to train it again', said
    )


@pytest.fixture(scope='module')
def options(digits):
    roots = [f'{name}_dataloader.dataset.data_root={digits}' for name in ('train', 'val')]
    return [
        '--cfg-options',
        *roots,
        'train_cfg.max_epochs=2',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
        'train_dataloader.dataset.indices=8',
    ]


@pytest.mark.processes
@pytest.mark.slow
def test_a_sweep_is_reported_skipped_and_continued(call, options, tmp_path):
    work = tmp_path / 'with space'
    command = [TOOL, STATIC, DYNAMIC, '--seeds', 1, '--jobs', 2, '--work-dir', work, '--latency-rounds']
    first = call(*command, 1, *options)
    assert first.returncode == 0, first.stderr
    assert '1 of 1' in first.stdout
    results = [read_run(Run(arm, 0, work / arm / 'seed_0')) for arm in (STATIC.stem, DYNAMIC.stem)]
    assert all(r.done and list(r.ap) == [1, 2] for r in results)
    assert set(results[1].routing) == {
        *(f'backbone.stage{i}.0.conv' for i in (1, 2, 3, 4)),
        *(f'neck.downsample_layers.{i}.conv' for i in (0, 1)),
    }
    assert 'routing' in (work / 'report.html').read_text()
    again = call(*command, 0, *options)
    assert again.returncode == 0, again.stderr
    assert [read_run(r.run).attempts for r in results] == [1, 1]
    # killed in its last validation: the checkpoint is there, its AP is not
    for log in results[0].run.folder.glob('*/vis_data/scalars.json'):
        log.write_text('\n'.join(line for line in log.read_text().splitlines() if 'bbox_mAP' not in line) + '\n')
    assert not read_run(results[0].run).done
    repaired = call(*command, 0, *options)
    assert repaired.returncode == 0, repaired.stderr
    assert read_run(results[0].run).final == results[0].final
    # a third run, by the script that Slurm is given
    plan = make_plan([work / STATIC.stem / 'config.py'], [1], tmp_path / 'slurm', {'train_cfg.max_epochs': 1})
    assert '#SBATCH --array=0-0\n' in write_slurm(plan, TRAIN).read_text()
    script = write_slurm(plan, TRAIN, 4)
    assert '#SBATCH --array=0-0%4\n' in script.read_text()
    subprocess.run(['bash', script], env={**os.environ, 'SLURM_ARRAY_TASK_ID': '0'}, check=True, timeout=120)
    assert read_run(plan.runs()[0]).done
    with pytest.raises(UserError, match='all 1 runs in .* are done'):
        write_slurm(plan, TRAIN, 4)


@pytest.mark.processes
@pytest.mark.slow
def test_a_sweep_that_is_stopped_stops_its_runs_and_goes_on_later(options, call, tmp_path):
    command = [TOOL, STATIC, '--seeds', 1, '--first-seed', 7, '--work-dir', tmp_path, '--latency-rounds', 0, *options]
    folder = Run(STATIC.stem, 7, tmp_path / STATIC.stem / 'seed_7')
    sweep = subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True)
    while not (folder.folder / 'epoch_1.pth').exists():
        assert sweep.poll() is None
        time.sleep(0.05)
    sweep.send_signal(signal.SIGTERM)
    said = sweep.communicate(timeout=120)[1]
    assert (sweep.returncode, 'error: stopped. The same command continues' in said, 'Traceback' in said) == (
        1,
        True,
        False,
    )
    with locked(tmp_path), locked(folder.folder):  # no run outlives it
        pass
    if not read_run(folder).done:  # it may have been quicker
        done = call(*command)
        assert done.returncode == 0, done.stderr
        assert read_run(folder).attempts == 2
    assert read_run(folder).done


@pytest.mark.processes
@pytest.mark.slow
def test_two_sweeps_in_one_folder(call, options, tmp_path):
    with locked(tmp_path):
        second = call(TOOL, STATIC, '--seeds', 1, '--work-dir', tmp_path, *options)
        assert (second.returncode, 'Traceback' in second.stderr) == (1, False)
        assert f'another sweep, or a run that it started, uses {tmp_path}' in second.stderr
        with pytest.raises(UserError, match='another sweep'), locked(tmp_path, patience=0.5):
            pass
    assert not (tmp_path / STATIC.stem).exists()


@pytest.mark.processes
@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(call, options, tmp_path):
    bad = tmp_path / 'bad.py'
    bad.write_text(
        f"_base_ = '{STATIC}'\noptim_wrapper = dict(optimizer=dict(lr=1e30))\n"
        'default_hooks = dict(param_scheduler=dict(warmup_epochs=0))\n'
    )
    work = tmp_path / 'w'
    done = call(TOOL, STATIC, bad, '--seeds', 1, '--jobs', 2, '--work-dir', work, '--latency-rounds', 0, *options)
    assert (done.returncode, 'Traceback' in done.stderr) == (1, False)
    assert '1 of 2 runs failed and are not in the table' in done.stderr
    report = (work / 'report.md').read_text()
    assert re.search(r'- bad, seed 0: the loss is nan from epoch \d on', report), report
    assert re.search(r'\| yolo11n_digits \| \d\.\d+ \| – \| 1 of 1 \|', report)
    assert re.search(r'\| bad \| – \| – \| 0 of 1 \| – \| – \| – \| – \| no pair \|', report)


MISTAKES = {
    'no seed': (
        ['--seeds', '0'],
        '--seeds and --jobs must be at least 1, --latency-rounds at least 0; got 0, None and 15',
    ),
    'first seed': (['--first-seed', '-1'], '--first-seed must be from 0 to 2147483647, got -1'),
    'nothing to report': (['--report-only'], 'has no run of yolo11n_digits: train first'),
    'unequal': ([str(ROOT / 'configs/yolo11n_bccd.py')], 'cannot be compared, because data or budget differ'),
    'no config': (['none.py'], 'no config file at'),
}


@pytest.mark.slow
@pytest.mark.parametrize(('arguments', 'message'), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_before_anything_is_written(call, tmp_path, arguments, message):
    done = call(TOOL, STATIC, *arguments, '--work-dir', tmp_path / 'w')
    assert (done.returncode, message in done.stderr, 'Traceback' in done.stderr) == (1, True, False), done.stderr
    assert not (tmp_path / 'w').exists()
