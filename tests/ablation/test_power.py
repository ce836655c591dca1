"""What a comparison can decide: power, equivalence and looks, and a plan that stands before its first run."""

import csv
import itertools
import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from scipy import stats

from conftest import ROOT
from logged_runs import DYNAMIC, STATIC, TRAIN, curve, log_run
from mmdyn.ablation.commands import command_of
from mmdyn.ablation.comparison import compare, primary_contrast
from mmdyn.ablation.declaration import PLAN_KEY, PLAN_NAME, Declaration, count_validations, declared, read_declaration
from mmdyn.ablation.plan import Plan, make_plan, record
from mmdyn.ablation.power import (
    equivalence_p,
    level_of_each,
    paired_p,
    pairs_for,
    pairs_for_equivalence,
    power_of,
    smallest_difference,
)
from mmdyn.ablation.report import decision, summary_csv, write_report
from mmdyn.ablation.runs import read_run, recorded_runs
from mmdyn.ablation.slurm import write_slurm
from mmdyn.ablation.sweep import run_all
from mmdyn.errors import UserError

# ---- power ----


@pytest.mark.parametrize(('pairs', 'effect'), [(3, 1.0), (5, 1.5), (12, 0.9), (30, 0.5), (30, 0.0)])
def test_power_is_that_of_the_noncentral_t(pairs, effect):
    bound, shift = stats.t.ppf(0.975, pairs - 1), effect * math.sqrt(pairs)
    expected = stats.nct.sf(bound, pairs - 1, shift) + stats.nct.cdf(-bound, pairs - 1, shift)
    assert power_of(effect, 1.0, pairs) == pytest.approx(expected, abs=1e-4)


# the table of the field notes: three pairs of a deviation of 0.0188 detect 0.061
@pytest.mark.parametrize(
    ('deviation', 'pairs', 'equivalent'),
    [(0.0188, (30, 10, 6), 32), (0.0117, (13, 5, 4), 14), (0.008, (8, 4, 3), 8), (0.005, (5, 3, 3), 4)],
)
def test_pairs_that_a_margin_needs(deviation, pairs, equivalent):
    assert tuple(pairs_for(margin, deviation) for margin in (0.01, 0.02, 0.03)) == pairs
    assert pairs_for_equivalence(0.01, deviation) == equivalent
    for margin, number in zip((0.01, 0.02, 0.03), pairs, strict=True):
        assert smallest_difference(deviation, number) <= margin < smallest_difference(deviation, number - 1)


def test_the_smallest_difference_of_too_few_pairs_is_unknown():
    assert math.isnan(smallest_difference(0.01, 1))
    assert math.isnan(smallest_difference(math.nan, 5))
    assert smallest_difference(0.0188, 3) == pytest.approx(0.061, abs=5e-4)
    assert smallest_difference(0.01, 2) > 0.1  # where SciPy's noncentral t has no value


def test_power_and_equivalence_are_those_of_simulated_comparisons():
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.0117, (20_000, 14))
    error = draws.std(1, ddof=1) / math.sqrt(14)
    bound = stats.t.ppf(0.95, 13) * error
    assert (np.abs(draws.mean(1)) + bound < 0.01).mean() == pytest.approx(0.834, abs=0.01)  # 13 pairs are too few
    shown = np.abs(draws[:, :13].mean(1) + 0.01) > stats.t.ppf(0.975, 12) * draws[:, :13].std(1, ddof=1) / math.sqrt(13)
    assert shown.mean() == pytest.approx(power_of(0.01, 0.0117, 13), abs=0.01)


def test_p_values_are_those_of_t_tests():
    values = [0.001, -0.002, 0.003, 0.000, 0.002]
    size = np.mean(values), np.std(values, ddof=1), 5
    assert paired_p(*size) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    assert equivalence_p(*size, max(abs(low), abs(high))) == pytest.approx(0.05)
    assert equivalence_p(*size, 0.5) < 1e-6
    assert equivalence_p(*size, 1e-9) > 0.5
    assert math.isnan(equivalence_p(0.1, 0.1, 1, 0.01))
    assert math.isnan(paired_p(0.1, 0.1, 1))


def test_pairs_beyond_reach_are_not_a_number_of_pairs():
    assert pairs_for(1e-5, 0.0188) == math.inf


# Pocock's table of nominal levels for equally spaced looks
@pytest.mark.parametrize(('looks', 'level'), [((6, 12), 0.0294), ((4, 8, 12), 0.0221), ((3, 6, 9, 12), 0.0182)])
def test_looks_share_the_level(looks, level):
    assert level_of_each(looks) == pytest.approx(level, abs=2e-4)
    assert level_of_each(looks[:1]) == level_of_each(()) == 0.05


# ---- the plan ----

STATED = dict(primary=DYNAMIC.stem, margin=0.01, looks=[2, 4], last=2)
ARMS = {STATIC.stem: Config.fromfile(STATIC), DYNAMIC.stem: Config.fromfile(DYNAMIC)}


def plan(tmp_path, **stated):
    """As ``make_plan``, without building the models."""
    return Plan(tmp_path, ARMS, range(2), declared(tmp_path, STATIC.stem, stated, ARMS))


def test_a_plan_is_written_with_its_date_and_can_change_until_the_first_run(tmp_path):
    record(plan(tmp_path, **STATED))
    content = json.loads((tmp_path / PLAN_NAME).read_text())
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', content.pop('date'))
    assert content == dict(STATED, control=STATIC.stem, start_epochs=0)
    record(plan(tmp_path, **STATED | dict(margin=0.02)))
    assert read_declaration(tmp_path).margin == 0.02
    assert plan(tmp_path).declaration.primary is None  # until it is stated and written


def test_a_plan_that_was_changed_after_its_first_run_is_refused(tmp_path):
    record(plan(tmp_path, **STATED))
    (tmp_path / STATIC.stem / 'seed_0').mkdir()
    with pytest.raises(UserError, match='was changed after its first run: margin was 0.01 and is 0.02 now'):
        plan(tmp_path, **STATED | dict(margin=0.02))
    with pytest.raises(UserError, match=r'looks was \(2, 4\) and is \(2, 6\) now; last was 2 and is 1 now'):
        plan(tmp_path, looks=[2, 6], last=1)
    with pytest.raises(UserError, match=f"control was '{STATIC.stem}' and is '{DYNAMIC.stem}' now"):
        declared(tmp_path, DYNAMIC.stem, {}, ARMS)
    again = plan(tmp_path)  # a call that states nothing goes on with it
    assert again.declaration == plan(tmp_path, **STATED).declaration == read_declaration(tmp_path)
    before = (tmp_path / PLAN_NAME).read_text()
    record(again)
    assert (tmp_path / PLAN_NAME).read_text() == before


def test_runs_that_were_made_without_a_plan_get_none_later(tmp_path):
    record(plan(tmp_path))
    (tmp_path / STATIC.stem / 'seed_0').mkdir()
    (tmp_path / PLAN_NAME).unlink()
    for path in tmp_path.glob('*/config.py'):  # as in a folder of an earlier version
        Config({k: v for k, v in Config.fromfile(path).to_dict().items() if k != PLAN_KEY}).dump(path)
    assert plan(tmp_path).declaration == Declaration(STATIC.stem)
    with pytest.raises(UserError, match='primary was None and is'):
        plan(tmp_path, **STATED)


def test_a_file_that_was_changed_or_removed_after_the_first_run_is_noticed(tmp_path):
    record(plan(tmp_path, **STATED))
    (tmp_path / STATIC.stem / 'seed_0').mkdir()
    path, before = tmp_path / PLAN_NAME, (tmp_path / PLAN_NAME).read_text()
    path.write_text(before.replace('0.01', '0.05'))
    for use in (lambda: plan(tmp_path), lambda: compare(tmp_path, [STATIC.stem], rounds=0)):
        with pytest.raises(UserError, match='was changed after the first run: margin was 0.01 and is 0.05 now'):
            use()
    path.unlink()
    assert plan(tmp_path).declaration == Declaration(**json.loads(before) | dict(looks=(2, 4)))
    record(plan(tmp_path))
    path.write_text(before)
    assert read_declaration(tmp_path).margin == 0.01


@pytest.mark.parametrize('content', ['{"kontrol": 3}', '[]', '{', '{"control": "a", "last": "3"}'])
def test_a_damaged_plan_is_named(tmp_path, content):
    (tmp_path / PLAN_NAME).write_text(content)
    with pytest.raises(UserError, match='plan.json is not the plan of a comparison'):
        read_declaration(tmp_path)


@pytest.mark.parametrize(('begin', 'every', 'expected'), [(1, 3, 6), (1, 5, 4), (17, 3, 1), (17, 1, 2), (1, 30, 1)])
def test_validations_are_counted_as_the_loop_makes_them(begin, every, expected):
    cfg = Config(dict(train_cfg=dict(max_epochs=18, val_begin=begin, val_interval=every)))
    assert count_validations(cfg) == expected


def test_a_run_with_too_few_validations_in_its_logs_is_not_done(tmp_path):
    run = log_run(tmp_path, STATIC.stem, 0, curve(0.1, 0.2, 0.4, 0.5))
    assert read_run(run, 4).final == pytest.approx(0.3)
    assert read_run(run, 5).error == 'its logs have 4 validations, and the score is the mean of the last 5'


@pytest.mark.parametrize(
    ('stated', 'message'),
    [
        (dict(primary=DYNAMIC.stem), '--primary and --margin belong together'),
        (dict(margin=0.01), '--primary and --margin belong together'),
        (dict(primary=STATIC.stem, margin=0.01), f"must be one of the arms {DYNAMIC.stem}, got '{STATIC.stem}'"),
        (dict(primary='other', margin=0.01), "got 'other'"),
        (dict(primary=DYNAMIC.stem, margin=0.0), '--margin must be between 0 and 1'),
        (dict(primary=DYNAMIC.stem, margin=0.01, looks=[6, 3]), 'growing numbers of pairs, from 2'),
        (dict(primary=DYNAMIC.stem, margin=0.01, looks=[1, 3]), 'growing numbers of pairs, from 2'),
        (dict(primary=DYNAMIC.stem, margin=0.01), '--primary needs the number of pairs'),
        (dict(primary=DYNAMIC.stem, margin=0.01, looks=[2, 3, 4, 5, 6, 7]), '--looks must be at most 5 growing'),
        (dict(looks=[3, 6]), '--looks are at the primary contrast'),
        (dict(last=0), '--last must be from 1 to the 6 validations of a run, got 0'),
        (dict(last=7), '--last must be from 1 to the 6 validations of a run, got 7'),
        (dict(start_epochs=-1), '--start-epochs must be at least 0'),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(stated, message):
    with pytest.raises(UserError, match=message):
        Declaration(STATIC.stem)._replace(**stated).check(ARMS)


def test_routers_do_not_see_padding_unless_that_is_asked(tmp_path):
    arms = make_plan([STATIC, DYNAMIC], [0], tmp_path, stated=STATED | dict(looks=[4])).arms
    assert all(cfg.model.pool_valid_area for cfg in arms.values())
    asked = make_plan([STATIC], [0], tmp_path, {'model.pool_valid_area': False})
    assert not asked.arms[STATIC.stem].model.pool_valid_area


# ---- the decision ----


def logged(tmp_path, dynamic, **stated):
    """A folder whose static runs have 0.4 and 0.5 in their last two validations, and whose dynamic ones differ."""
    record(plan(tmp_path, **STATED | stated))
    for path in tmp_path.glob('*/config.py'):
        path.unlink()
    for seed, difference in enumerate(dynamic):
        log_run(tmp_path, STATIC.stem, seed, curve(0.1, 0.2, 0.4, 0.5))
        log_run(tmp_path, DYNAMIC.stem, seed, curve(0.1, 0.2, 0.4 + difference, 0.5), config=DYNAMIC)
    return compare(tmp_path, [STATIC.stem, DYNAMIC.stem], rounds=0)


def test_the_score_is_the_mean_of_the_last_validations(tmp_path):
    found = logged(tmp_path, [0.02, 0.04])
    assert found.control.final == pytest.approx([0.45, 0.45])
    assert found.arms[1].final == pytest.approx([0.46, 0.47])
    assert found.arms[1].difference.mean == pytest.approx(0.015)
    text = write_report(found, tmp_path / 'r')['report.md'].read_text()
    assert 'as the mean of the last 2 validations' in text


BOTH = [0.008, 0.009, 0.010, 0.008]
DECISIONS = {  # differences of the last validation but one, so twice those of the score; looks; what is said
    'difference': ([0.040, 0.044, 0.038, 0.046], [2, 4], 4, 'At 4 pairs it shows a difference of +0.021.'),
    'equivalence': ([0.001, -0.001, 0.002, 0.000], [2, 4], 2, 'At 2 pairs it shows equivalence within ±0.01.'),
    'both': (BOTH, [4], 4, 'At 4 pairs it shows a difference of +0.004 and equivalence within ±0.01.'),
    'stays at the look that showed it': (
        [*BOTH, 0.9, -0.9],
        [4, 6],
        4,
        'At 4 pairs it shows a difference of +0.004 and',
    ),
    'neither': ([0.08, -0.06], [2], 2, 'At 2 pairs it shows neither a difference nor equivalence.'),
    'neither yet': ([0.08, -0.06, 0.09], [2, 4], 2, 'nor equivalence. It is decided again at 4.'),
    'more pairs than planned': ([0.08, -0.06, 0.07, 0.07], [2], 2, 'At 2 pairs it shows neither'),
    'no look is due': ([0.04], [2, 4], 0, 'It is not decided yet: fewer than 2 pairs are done.'),
}


def decided(dynamic, looks, margin=0.01):
    """The contrast of static runs of 0.45 and dynamic ones that differ by half of the numbers."""
    stated = Declaration(STATIC.stem, DYNAMIC.stem, margin, tuple(looks), 2, 0, '2026-01-01')
    finals = {STATIC.stem: dict.fromkeys(range(len(dynamic)), 0.45)}
    finals[DYNAMIC.stem] = {seed: 0.45 + d / 2 for seed, d in enumerate(dynamic)}
    return primary_contrast(stated, finals)


@pytest.mark.parametrize(('dynamic', 'looks', 'pairs', 'text'), DECISIONS.values(), ids=DECISIONS)
def test_the_primary_contrast_is_decided_at_its_looks(dynamic, looks, pairs, text):
    primary = decided(dynamic, looks)
    sentences = ' '.join(decision(SimpleNamespace(primary=primary)))
    assert text in sentences
    assert f'at {" and ".join(map(str, looks))} pairs with a level of {primary.level:.4f} each' in sentences
    assert primary.difference.pairs == pairs
    if pairs:
        values = [d / 2 for d in dynamic[:pairs]]
        low, high = stats.ttest_1samp(values, 0).confidence_interval(1 - primary.level)
        if np.std(values, ddof=1) > 0.0005:  # else the rounding of AP is the deviation
            assert (primary.difference.low, primary.difference.high) == pytest.approx((low, high))
            assert primary.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_equal_differences_are_no_proof():
    """AP is rounded to three decimals, so three equal ones of one step may be due to that."""
    primary = decided([0.002, 0.002, 0.002], [3], margin=0.0012)
    assert primary.p > primary.level
    assert primary.verdict == 'neither a difference nor equivalence'
    assert primary.difference.low < 0


def test_the_report_begins_with_the_decision(tmp_path):
    found = logged(tmp_path, [0.08, -0.06])
    text = write_report(found, tmp_path / 'r')['report.md'].read_text()
    assert ' '.join(decision(found)) in ' '.join(text.split())
    assert '| see above |' in text


def test_numbers_are_in_their_columns(tmp_path):
    found = logged(tmp_path, [0.02, 0.04])
    rows = list(csv.DictReader(summary_csv(found).splitlines()))
    assert [int(row['parameters']) for row in rows] == [arm.cost.parameters for arm in found.arms]
    assert [float(row['best_ap']) for row in rows] == [0.5, 0.5]
    assert float(rows[1]['difference']) == pytest.approx(0.015)


def test_without_a_plan_nothing_is_decided(tmp_path):
    for seed in range(2):
        log_run(tmp_path, STATIC.stem, seed, curve(0.1, 0.2, 0.4, 0.5))
    found = compare(tmp_path, [STATIC.stem], rounds=0)
    assert found.primary is None
    assert decision(found) == []


def test_pairs_on_unlike_machines_are_named(tmp_path):
    for seed, (a, b) in enumerate(itertools.pairwise(('old', 'old', 'new'))):
        log_run(tmp_path, STATIC.stem, seed, curve(0.1, 0.2, 0.4, 0.5), f'machine: {a}\nx\n')
        log_run(tmp_path, DYNAMIC.stem, seed, curve(0.1, 0.2, 0.4, 0.5), f'machine: {b}\nx\n', config=DYNAMIC)
    found = compare(tmp_path, [STATIC.stem, DYNAMIC.stem], rounds=0)
    text = write_report(found, tmp_path / 'r')['report.md'].read_text()
    assert f'On another kind of machine than the control: {DYNAMIC.stem} seed 1.' in text


# ---- arms that start from one run of the control ----

STAND_IN = """
import json, sys
from pathlib import Path
work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
epochs = 2 if 'starts' in str(work) else 18
start = [a.split('=', 1)[1] for a in sys.argv if a.startswith('load_from=')]
assert all(Path(path).is_file() for path in start)
(work / f'epoch_{epochs}.pth').write_text(' '.join(start))
log = work / '20260101_000000/vis_data/scalars.json'
log.parent.mkdir(parents=True, exist_ok=True)
log.write_text(json.dumps({'coco/bbox_mAP': 0.5, 'step': epochs}))
"""


@pytest.mark.slow
def test_every_seed_has_one_start(tmp_path):
    (tmp_path / 'tool.py').write_text(STAND_IN)
    started = plan(tmp_path / 'w', start_epochs=2)
    assert run_all(started, tmp_path / 'tool.py', jobs=2) == []
    for seed, run in itertools.product(range(2), started.runs()):
        if run.seed == seed:
            expected = tmp_path / f'w/starts/{STATIC.stem}/seed_{seed}/epoch_2.pth'
            assert (run.folder / 'epoch_18.pth').read_text() == str(expected)
    assert all(read_run(run).done and read_run(run).epochs == 2 for run in started.starts())
    assert len(compare(tmp_path / 'w', list(started.arms), rounds=0).arms) == 2  # starts are no arm
    again = recorded_runs(tmp_path / 'w')
    assert sorted(again) == sorted(started.runs())
    assert all(command_of(run, TRAIN)[-1].endswith(f'seed_{run.seed}/epoch_2.pth') for run in again)
    assert not any('load_from' in word for run in started.starts() for word in command_of(run, TRAIN))
    for seed in range(2):
        started.start_of(seed).unlink()  # as on another machine, with the logs alone
    assert run_all(started, tmp_path / 'tool.py') == []
    done = started.runs()[0]
    shutil.rmtree(done.folder)
    assert run_all(started, tmp_path / 'tool.py') == []
    assert [started.start_of(seed).is_file() for seed in range(2)] == [True, False]
    assert read_run(done).done
    with pytest.raises(UserError, match='start_epochs was 2 and is 3 now'):
        plan(tmp_path / 'w', start_epochs=3)
    with pytest.raises(UserError, match='--start-epochs needs one machine'):
        write_slurm(started, TRAIN)


def test_arms_that_cannot_start_from_the_control_are_named(tmp_path):
    with pytest.raises(UserError, match='yolo11n_dynconv_digits cannot start from yolo11n_digits'):
        make_plan([STATIC, ROOT / 'configs/yolo11n_dynconv_digits.py'], [0], tmp_path, stated=dict(start_epochs=2))
    make_plan([STATIC, DYNAMIC], [0], tmp_path, stated=dict(start_epochs=2))
