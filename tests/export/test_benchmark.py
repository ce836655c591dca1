"""The table of formats: what ran, what was refused and why, with the numbers of the files."""

import json

import pytest

from conftest import ROOT
from mmdyn.checkpoints import EXPORTED
from mmdyn.errors import UserError
from mmdyn.export.benchmark import benchmark
from mmdyn.export.options import FORMATS
from mmdyn.inference.packaged import packaged
from mmdyn.inference.runtimes import DETECTORS
from mmdyn.running.config_file import load_config


def test_every_format_has_a_suffix_and_a_runtime(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    import _arguments

    assert EXPORTED.keys() == FORMATS.keys()
    assert set(EXPORTED.values()) == set(DETECTORS)
    assert _arguments.EXPORTED == EXPORTED


@pytest.mark.slow
@pytest.mark.processes
def test_formats_are_compared(call, digits, tmp_path):
    pytest.importorskip('pnnx', reason='needs requirements/deploy.txt')
    config, checkpoint = packaged('digits')
    options = ('--formats', 'ncnn', 'engine', '--all-forms', '--repeats', 2, '--out-dir', tmp_path)
    data = (
        '--cfg-options',
        f'test_dataloader.dataset.data_root={digits}/',
        f'val_dataloader.dataset.data_root={digits}/',
    )
    data += (f'test_evaluator.ann_file={digits}/annotations/val.json',)
    done = call('tools/benchmark.py', config, checkpoint, *options, *data)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / 'benchmark.json').read_text())
    results = {(row['format'], row['form']): row['result'] for row in rows}
    assert results['PyTorch', 'dynamic'] == results['ncnn', 'mixed_outputs'] == 'run'
    assert results['ncnn', 'per_sample'].startswith('refused: ncnn needs constant kernels: omit --form')
    assert results['engine', 'per_sample'].startswith('refused: engine needs ')
    ran = [row for row in rows if row['result'] == 'run']
    assert all(row['seconds'] > 0 and row['size'] > 5e6 for row in ran)
    assert all(row['boxes'] < 0.01 and row['scores'] < 1e-4 for row in ran[1:])
    by_name = {(row['format'], row['form']): row for row in rows}
    ap = by_name['PyTorch', 'dynamic']['ap']
    assert ap > 0.2
    assert by_name['ncnn', 'mixed_outputs']['ap'] == pytest.approx(ap, abs=0.001)
    table = (tmp_path / 'benchmark.md').read_text()
    assert table.count('\n') == len(rows) + 2
    assert table in done.stdout


def test_what_is_no_format_is_named(tmp_path):
    config, checkpoint = packaged('digits')
    with pytest.raises(UserError, match="there is no format 'tflite': set onnx, openvino"):
        benchmark(load_config(config), checkpoint, tmp_path, ['tflite'])
