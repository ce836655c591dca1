"""The study: what README and pages state of it is what its results say, and its logs make its report again."""

import csv
import math
import re
import tarfile

import pytest

from conftest import ROOT
from mmdyn.ablation.comparison import compare, paired_difference
from mmdyn.ablation.report import runs_csv, summary_csv

STUDY = ROOT / 'docs/study'
DATA = sorted(p.parent.name for p in STUDY.glob('*/summary.csv'))
ROW = re.compile(r'\| (\d\.\d{3} ± \d\.\d{3}) \| ([^|]+) \| ([\d.]*) \| ([\d,]+) \| ([\d.]+) \|')
CONTRAST = re.compile(r'^\| `(\S+)` \| `(\S+)` \| (\S+ \(\S+ to \S+\)) \|$', re.M)


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


@pytest.mark.parametrize(('page', 'data'), [('README.md', ['bccd']), ('docs/study.md', DATA)])
def test_tables_state_the_results(page, data):
    expected = [stated(row) for d in data for row in rows(d, 'summary.csv')]
    assert expected
    assert ROW.findall((ROOT / page).read_text()) == expected


def test_contrasts_are_those_of_the_runs():
    """Differences between two arms, none of which is the control."""
    final: dict[str, dict[int, float]] = {}
    for data in DATA:
        runs = rows(data, 'runs.csv')
        last = max(int(run['epoch']) for run in runs)
        for run in runs:
            if int(run['epoch']) == last:
                final.setdefault(run['config'], {})[int(run['seed'])] = float(run['ap'])
    found = CONTRAST.findall((ROOT / 'docs/study.md').read_text())
    assert found
    for one, other, difference in found:
        assert difference == interval(*paired_difference(final[one], final[other])[:3])


@pytest.mark.parametrize('data', DATA)
def test_every_arm_has_all_seeds(data):
    assert {(row['seeds'], row['missing']) for row in rows(data, 'summary.csv')} == {('3', '0')}


@pytest.mark.parametrize('data', DATA)
def test_the_logs_make_the_report_again(data, tmp_path):
    with tarfile.open(STUDY / data / 'logs.tar.gz') as archive:
        archive.extractall(tmp_path, filter='data')
    summary = rows(data, 'summary.csv')
    again = compare(tmp_path, [row['config'] for row in summary], 0, range(3))
    assert runs_csv(again) == (STUDY / data / 'runs.csv').read_text()
    measured = {'step_s': '', 'latency_s': ''}
    found = list(csv.DictReader(summary_csv(again).splitlines()))
    assert [r | measured for r in found] == [r | measured for r in summary]
