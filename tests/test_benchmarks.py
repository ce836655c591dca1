"""The benchmarks: what they time and count is what they say, and each runs."""

import copy
import json
import sys
import time

import pytest
import torch

from conftest import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))

import _timing
import conv_latency
import model_latency

from mmdyn import DynamicConv
from mmdyn.analysis.timing import interleaved, summary
from mmdyn.layers import fold_batch_norms


@pytest.mark.parametrize(
    'name', ['conv_latency', 'model_latency', 'family_latency', 'data_pipeline', 'exported_latency']
)
def test_help_is_quick_and_has_an_example(run, name):
    done = run('-X', 'importtime', ROOT / 'benchmarks' / f'{name}.py', '--help')
    assert done.returncode == 0
    assert 'example' in done.stdout
    assert 'torch' not in [line.split('|')[-1].strip() for line in done.stderr.splitlines()]


def test_alternatives_take_turns():
    calls = []
    seconds = {'a': 0.02, 'b': 0.03}

    def call(name):
        calls.append(name)
        torch.cuda.is_available()
        end = time.perf_counter() + seconds[name]
        while time.perf_counter() < end:
            pass

    times = interleaved({name: lambda name=name: call(name) for name in seconds}, repeats=3)
    assert calls == [*'aabb', *'ababab']
    assert times['b']['median'] / times['a']['median'] == pytest.approx(1.5, rel=0.3)
    assert all(t['q1'] <= t['median'] <= t['q3'] for t in times.values())


def test_quartiles():
    assert summary([3.0, 1.0, 2.0, 5.0, 4.0]) == {'median': 3.0, 'q1': 2.0, 'q3': 4.0}
    assert summary([2.0]) == {'median': 2.0, 'q1': 2.0, 'q3': 2.0}
    assert _timing.mean_ratio([0.5, 2.0]) == pytest.approx(1)


def test_peak_memory_counts_what_is_held_at_once():
    def one_after_another():
        for _ in range(3):
            torch.ones(1 << 20)  # 4 MiB

    def at_once():
        return [torch.ones(1 << 20) for _ in range(3)]

    assert _timing.peak_memory(one_after_another) == pytest.approx(4 << 20, rel=0.01)
    assert _timing.peak_memory(at_once) == pytest.approx(12 << 20, rel=0.01)


def test_grid_has_the_layers_of_yolo11():
    from mmengine.config import Config

    from mmdyn.models.build import build_model

    shapes = {(s.in_channels, s.out_channels) for s in conv_latency.grid_shapes()}
    for scale in 'nsmlx':
        model = build_model(Config.fromfile(ROOT / 'configs' / f'yolo11{scale}_dynconv_coco.py'))
        assert {(m.in_channels, m.out_channels) for m in model.modules() if isinstance(m, DynamicConv)} <= shapes


def test_a_cell_is_measured(tmp_path):
    shape = conv_latency.Shape('here', 8, 16, 3, 2, 1, 32)
    rows = []
    for mode in ('inference', 'training'):
        cell = conv_latency.Cell(shape, 2, 'float32', 'nhwc', mode)
        rows.append(conv_latency.measure(cell, repeats=2))
        assert set(rows[-1]['seconds']) == set(rows[-1]['peak_bytes']) == {'static', 'mmdyn', 'timm'}
    assert all(a['peak_bytes']['static'] < b['peak_bytes']['static'] for a, b in [rows])
    figures = conv_latency.summarise(rows)
    assert figures['cells'] == 2
    _timing.write_json(tmp_path / 'new' / 'x.json', {'rows': rows})
    written = json.loads((tmp_path / 'new' / 'x.json').read_text())
    assert written['rows'] == rows
    assert written['machine']['packages']['torch'] == torch.__version__.split('+')[0]
    conv_latency.plot(rows).savefig(tmp_path / 'x.png')
    assert (tmp_path / 'x.png').stat().st_size > 10_000


def test_the_published_form_computes_the_same():
    from _peers import PublishedDynamicConv, in_published_form

    ours = torch.nn.Sequential(DynamicConv(8, 16, 3, 2, 1), torch.nn.Sequential(DynamicConv(16, 16, 3, 1, 1)))
    published = in_published_form(copy.deepcopy(ours))
    assert not [m for m in published.modules() if isinstance(m, DynamicConv)]
    for ours_, theirs in zip(
        [m for m in ours.modules() if isinstance(m, DynamicConv)],
        [m for m in published.modules() if isinstance(m, PublishedDynamicConv)],
        strict=True,
    ):
        theirs.conv.weight.data.copy_(ours_.weight)
        theirs.routing.load_state_dict(ours_.router.state_dict())
    x = torch.randn(3, 8, 40, 40)
    torch.testing.assert_close(published(x), ours(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mode', ['training', 'inference'])
def test_a_detector_is_measured(mode):
    case = model_latency.Case('n', mode, 64, 2, 'float32')
    row = model_latency.measure(case, repeats=1, has_original=False)
    kinds = ('static', 'dynconv', 'published')
    folded = [f'{k} {layout} folded' for layout in ('nhwc', 'nchw') for k in kinds[:2]]
    names = [f'{k} {layout}' for layout in ('nhwc', 'nchw') for k in kinds]
    assert list(row['seconds']) == names + (folded if mode == 'inference' else [])
    for name in row['seconds']:
        row['seconds'][name] = {'median': 4.0}
    row['seconds']['dynconv nchw']['median'] = 6.0
    row['seconds']['dynconv nhwc']['median'] = 5.0
    memory = {
        **case._asdict(),
        'name': 'here',
        'detectors': {kind: {'peak_bytes': 100 + 7 * n} for n, kind in enumerate(kinds)},
    }
    ratios = {figure['what'].split(':')[0]: figure['ratio'] for figure in model_latency.summarise([row], [memory])}
    assert ratios['dynconv / static'] == 1.25
    assert ratios['published / static'] == 1.0
    assert ratios['peak memory of a step, dynconv / static'] == 1.07


def test_memory_of_a_step_has_the_gradients_of_the_experts():
    case = model_latency.Case('n', 'training', 64, 1, 'float32')
    found = model_latency.measure_memory(case)['detectors']
    extra = found['dynconv']['parameters'] - found['static']['parameters']
    assert extra == 4_629_336 - 2_624_064
    assert found['dynconv']['peak_bytes'] - found['static']['peak_bytes'] > 0.9 * 4 * extra


def test_folded_detector_is_the_same():
    case = model_latency.Case('n', 'inference', 64, 2, 'float32')
    model = model_latency.build(model_latency.Detector('dynconv', 'nhwc'), case).double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)

    def features():
        with torch.no_grad():
            return torch.cat([level.flatten() for level in model.neck(model.backbone(images))])

    expected = features()
    fold_batch_norms(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(features(), expected, rtol=1e-9, atol=1e-9)
