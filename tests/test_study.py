"""The study: what README and pages state of it is what its results say, and its logs make its report again."""

import csv
import math
import re
import tarfile

import pytest

from conftest import ROOT
from mmdyn.ablation.comparison import compare
from mmdyn.ablation.report import runs_csv, summary_csv

STUDY = ROOT / 'docs/study'
DATA = sorted(p.parent.name for p in STUDY.glob('*/summary.csv'))
ROW = re.compile(r'\| (\d\.\d{3} ± \d\.\d{3}) \| ([^|]+) \| ([\d,]+) \| ([\d.]+) \|')


def summary(data: str) -> list[dict[str, str]]:
    return list(csv.DictReader((STUDY / data / 'summary.csv').read_text().splitlines()))


def stated(row: dict[str, str]) -> tuple[str, ...]:
    """The cells of a table that states an arm."""
    figures = {key: float(row[key]) for key in ('ap', 'ap_std', 'difference', 'low', 'high')}
    interval = '{difference:+.3f} ({low:+.3f} to {high:+.3f})'.format(**figures)
    score = '{ap:.3f} ± {ap_std:.3f}'.format(**figures)
    shown = 'control' if math.isnan(figures['low']) else interval
    return score, shown, f'{int(row["parameters"]):,}', f'{int(row["flops"]) / 1e9:.3f}'


@pytest.mark.parametrize('page', ['README.md', 'docs/study.md'])
def test_tables_state_the_results(page):
    expected = [stated(row) for data in DATA for row in summary(data)]
    assert expected
    assert ROW.findall((ROOT / page).read_text()) == expected


@pytest.mark.parametrize('data', DATA)
def test_every_arm_has_all_seeds(data):
    assert {(row['seeds'], row['missing']) for row in summary(data)} == {('3', '0')}


@pytest.mark.parametrize('data', DATA)
def test_the_logs_make_the_report_again(data, tmp_path):
    with tarfile.open(STUDY / data / 'logs.tar.gz') as archive:
        archive.extractall(tmp_path, filter='data')
    rows = summary(data)
    again = compare(tmp_path, [row['config'] for row in rows], 0, range(3))
    assert runs_csv(again) == (STUDY / data / 'runs.csv').read_text()
    measured = {'step_s': '', 'latency_s': ''}
    found = list(csv.DictReader(summary_csv(again).splitlines()))
    assert [r | measured for r in found] == [r | measured for r in rows]
