"""The study: README and page state what its results say, and its logs make its report again."""

import csv
import itertools
import math
import re
import runpy
import statistics
import tarfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from conftest import ROOT
from mmdyn.ablation.comparison import compare, joint_p, paired_difference
from mmdyn.ablation.report import runs_csv, summary_csv
from mmdyn.errors import UserError

STUDY = ROOT / 'docs/study'
DATA = ['bccd', 'digits', 'aids', 'nuclei', 'nuclei_obb']  # in the order of the page
ROW = re.compile(r'\| (\d\.\d{3} ± \d\.\d{3}) \| ([^|]+) \| ([\d.]*) \| ([\d,]+) \| ([\d.]+) \|')
CONTRAST = re.compile(r'^\| `(\S+)` \| (\S+ \(\S+ to \S+\)) \| ([\d.]+) \|$', re.M)


def rows(data: str, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((STUDY / data / name).read_text().splitlines()))


def interval(mean: float, low: float, high: float) -> str:
    return f'{mean:+.3f} ({low:+.3f} to {high:+.3f})'


def stated(row: dict[str, str]) -> tuple[str, ...]:
    """The cells of a table that states an arm."""
    difference, low, high = (float(row[key]) for key in ('difference', 'low', 'high'))
    control = math.isnan(low)
    shown = ('control', '') if control else (interval(difference, low, high), f'{float(row["p"]):.3f}')
    score = f'{float(row["ap"]):.3f} ± {float(row["ap_std"]):.3f}'
    return score, *shown, f'{int(row["parameters"]):,}', f'{int(row["flops"]) / 1e9:.3f}'


def test_tables_state_the_results():
    expected = [stated(row) for data in DATA for row in rows(data, 'summary.csv')]
    assert expected
    assert ROW.findall((ROOT / 'docs/study.md').read_text()) == expected


def test_the_readme_states_the_results():
    """The difference of the bare DynamicConv to static, on both data sets."""
    expected = []
    for data in ('bccd', 'digits'):
        row = next(row for row in rows(data, 'summary.csv') if row['config'] == f'yolo11n_dynconv_{data}')
        expected.append(interval(*(float(row[key]) for key in ('difference', 'low', 'high'))))
    text = (ROOT / 'README.md').read_text().replace('95 % interval ', '')
    assert re.findall(r'[+-]\d\.\d{3} \([+-]\d\.\d{3} to [+-]\d\.\d{3}\)', text) == expected


def final_ap(data: str) -> dict[str, dict[int, float]]:
    """AP of the last epoch, of every config by seed."""
    runs = rows(data, 'runs.csv')
    last = max(int(run['epoch']) for run in runs)
    final: dict[str, dict[int, float]] = {}
    for run in runs:
        if int(run['epoch']) == last:
            final.setdefault(run['config'], {})[int(run['seed'])] = float(run['ap'])
    return final


@pytest.mark.parametrize('data', DATA)
def test_the_summary_follows_from_the_runs(data):
    summary, final = rows(data, 'summary.csv'), final_ap(data)
    assert [row['config'] for row in summary] == list(final)
    control, *arms = final.values()
    for row, arm, p in zip(summary[1:], arms, joint_p(arms, control), strict=True):
        expected = [
            statistics.mean(arm.values()),
            statistics.stdev(arm.values()),
            *paired_difference(arm, control)[:3],
            p,
        ]
        found = [float(row[key]) for key in ('ap', 'ap_std', 'difference', 'low', 'high', 'p')]
        assert found == pytest.approx(expected, rel=1e-5)  # SciPy 1.17 and 1.18 differ by 2e-6 in p


def test_the_wider_detector_as_control():
    """The second table of BCCD and of the digits."""
    expected = []
    for data in ('bccd', 'digits'):
        final = final_ap(data)
        wide = final.pop(f'yolo11n_static-wide_{data}')
        for (name, arm), p in zip(final.items(), joint_p(list(final.values()), wide), strict=True):
            expected.append((name, interval(*paired_difference(arm, wide)[:3]), f'{p:.3f}'))
    assert CONTRAST.findall((ROOT / 'docs/study.md').read_text()) == expected


@pytest.mark.parametrize(
    ('data', 'columns'), [('bccd', ('ap', 'ap_not_clipped')), ('nuclei', ('ap',)), ('nuclei_obb', ('ap',))]
)
def test_the_original_beside_it(data, columns):
    page, found = (ROOT / 'docs/study.md').read_text(), rows(data, 'original.csv')
    for column in columns:
        scores = [', '.join(row[column] for row in found if row['checkpoint'] == name) for name in ('last', 'best')]
        assert f'| {" | ".join(scores)} |' in page


@pytest.mark.parametrize('data', DATA)
def test_every_arm_has_all_seeds(data):
    assert {(row['seeds'], row['missing']) for row in rows(data, 'summary.csv')} == {('3', '0')}


@pytest.mark.parametrize(
    'data', ['bccd', 'digits', 'nuclei', 'nuclei_obb']
)  # some of the aids are no longer in the code
def test_the_logs_make_the_report_again(data, tmp_path):
    with tarfile.open(STUDY / data / 'logs.tar.gz') as archive:
        archive.extractall(tmp_path, filter='data')
    summary = rows(data, 'summary.csv')
    again = compare(tmp_path, [row['config'] for row in summary], 0, range(3))
    assert runs_csv(again) == (STUDY / data / 'runs.csv').read_text()
    measured = {'step_s': '', 'latency_s': ''}
    found = list(csv.DictReader(summary_csv(again).splitlines()))
    assert [r | measured for r in found] == [r | measured for r in summary]


@pytest.fixture(scope='module')
def pretraining():
    """The script of the study of pretraining."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / 'demo/pretraining_study.py')))


def test_the_page_states_the_gains_of_pretraining(pretraining):
    scores = pretraining.recorded_scores(STUDY / 'pretraining/runs.csv')
    assert pretraining.table(pretraining.summary(scores)) in (ROOT / 'docs/study.md').read_text()
    assert len(scores) == 12 * len({arm.seed for arm in scores})


def test_gains_of_pretraining_are_paired_by_seed(pretraining):
    arm = pretraining.Arm
    aps = {('static', 'nothing'): [0.1, 0.2, 0.3], ('static', 'pretrained'): [0.2, 0.2, 0.5]}
    aps |= {('dynamic', 'nothing'): [0.1, 0.1, 0.1], ('dynamic', 'pretrained'): [0.4, 0.2]}  # the third is not done
    scores = {arm(80, *key, seed): ap for key, values in aps.items() for seed, ap in enumerate(values)}
    scores[arm(240, 'static', 'nothing', 0)] = 0.5
    found = pretraining.gains(scores, 80)
    assert found['static'] == pytest.approx({0: 0.1, 1: 0.0, 2: 0.2})
    assert found['dynamic'] == pytest.approx({0: 0.3, 1: 0.1})
    assert found[pretraining.BEYOND] == pytest.approx({0: 0.2, 1: 0.1})
    rows = pretraining.summary(scores)
    assert [(row['images'], row['gain'], row['seeds']) for row in rows] == [
        (80, 'static', 3),
        (80, 'dynamic', 2),
        (80, pretraining.BEYOND, 2),
    ]
    for row in rows[:2]:
        assert row['pretrained'] - row['nothing'] == pytest.approx(row['mean'])
    assert rows[2]['mean'] == pytest.approx(0.15)
    # Student's for two values: half the difference times tan(0.95 * pi / 2)
    assert rows[2]['high'] - rows[2]['mean'] == pytest.approx(0.05 * math.tan(0.95 * math.pi / 2), rel=1e-6)
    assert pretraining.table(rows).count('\n') == 4


def test_holm_corrects_the_smallest_most(pretraining):
    assert pretraining.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert pretraining.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert pretraining.holm([]) == []


def test_runs_of_an_earlier_report_are_not_trained_again(pretraining, tmp_path, capsys):
    arms = list(itertools.product(pretraining.SHARES, pretraining.VARIANTS, pretraining.STARTS, range(2)))
    lines = [','.join(map(str, (*arm, 0.1 + 1e-5 * i**3))) for i, arm in enumerate(arms)]
    report = tmp_path / 'report'
    report.mkdir()
    (report / 'runs.csv').write_text('\n'.join(['images,variant,start,seed,ap', *lines]) + '\n')
    options = [str(tmp_path / 'work'), '--seeds', '2', '--report-dir', str(report)]
    pretraining.study(pretraining.make_parser().parse_args(options))
    assert '24 of 24 runs are done' in capsys.readouterr().out
    assert pretraining.recorded_scores(report / 'runs.csv')[pretraining.Arm(*arms[3])] == pytest.approx(0.10027)
    assert not (tmp_path / 'work').exists()
    assert (report / 'gains.png').is_file()


def test_no_recorded_run_is_lost_and_other_files_are_refused(pretraining, tmp_path):
    path = tmp_path / 'runs.csv'
    arms = itertools.product([80], pretraining.VARIANTS, pretraining.STARTS, range(4))
    rows = [(*arm, 0.1 + 0.01 * arm[3] ** 2 * len(arm[1] + arm[2])) for arm in arms]
    path.write_text('\n'.join(['images,variant,start,seed,ap', *(','.join(map(str, row)) for row in rows)]) + '\n')
    options = [str(tmp_path), '--seeds', '3', '--report-only']
    pretraining.study(pretraining.make_parser().parse_args(options))
    assert len(pretraining.recorded_scores(path)) == len(rows)  # also the fourth seed
    path.write_text('a,b\n1,2\n')
    with pytest.raises(UserError, match='runs.csv has no runs of this study: KeyError'):
        pretraining.study(pretraining.make_parser().parse_args(options))


def test_boards_of_the_source_become_coco(tmp_path):
    script = SimpleNamespace(**runpy.run_path(str(ROOT / 'demo/deeppcb_to_coco.py')))
    source = tmp_path / 'PCBData'
    for listed, name in (('trainval.txt', '00041000'), ('test.txt', '12000025')):
        images, boxes = source / 'group' / name, source / 'group' / f'{name}_not'
        images.mkdir(parents=True)
        boxes.mkdir()
        cv2.imwrite(str(images / f'{name}_test.jpg'), np.full((40, 50), 200, np.uint8))
        (boxes / f'{name}.txt').write_text('1 2 11 22 3\n5 6 7 8 6\n')
        (source / listed).write_text(f'group/{name}/{name}.jpg group/{name}_not/{name}.txt\n')
    script.run(script.make_parser().parse_args([str(source), str(tmp_path / 'out')]))
    coco = COCO(str(tmp_path / 'out/val.json'))
    assert coco.loadImgs(1)[0] == dict(id=1, file_name='12000025.jpg', width=50, height=40)
    assert [a['bbox'] for a in coco.loadAnns(coco.getAnnIds(1))] == [[1, 2, 10, 20], [5, 6, 2, 2]]
    assert [coco.cats[a['category_id']]['name'] for a in coco.loadAnns([1, 2])] == ['mousebite', 'pin-hole']
    assert (tmp_path / 'out/images/00041000.jpg').is_file()
    with pytest.raises(UserError, match='has no trainval.txt: give the folder PCBData'):
        script.run(script.make_parser().parse_args([str(tmp_path), str(tmp_path / 'out')]))
