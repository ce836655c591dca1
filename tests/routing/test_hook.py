"""Routing diagnostics: figures with known values, what the log and TensorBoard get, and when it warns."""

import math
import re

import pytest
import torch
from mmengine.hooks import IterTimerHook, LoggerHook
from mmengine.structures import InstanceData

from conftest import ROOT
from mmdyn import DynamicConv
from mmdyn.engine import ChannelsLastHook, CheckpointGuardHook
from mmdyn.layers import dynamic_layers
from mmdyn.logs import log_records
from mmdyn.models.build import build_model
from mmdyn.routing import record_routing
from mmdyn.routing.hook import RoutingHook, present_classes
from mmdyn.routing.statistics import class_means, routing_statistics

EXPERTS = torch.eye(4)  # orthogonal kernels


def test_an_equal_mixture():
    found = routing_statistics(torch.full((6, 4), 0.5), EXPERTS)
    assert found.use == pytest.approx((0.25,) * 4)
    assert found.weight == pytest.approx((0.5,) * 4)
    assert (found.entropy, found.balance) == (pytest.approx(1), pytest.approx(1))
    assert (found.sample_spread, found.saturated, found.dead) == (0, 0, 0)
    assert found.collapsed == 'all images are mixed alike, with a spread of 0'
    assert routing_statistics(torch.full((1, 4), 0.5), EXPERTS).collapsed is None  # one image says nothing of it
    assert routing_statistics(torch.tensor([[0.5] * 4, [0.503] * 4]), EXPERTS).collapsed is None


def test_each_sample_its_expert():
    found = routing_statistics(torch.eye(4), EXPERTS, present=torch.eye(4, dtype=torch.bool))
    assert (found.entropy, found.balance) == (pytest.approx(0), pytest.approx(1))
    assert found.sample_spread == pytest.approx(math.sqrt(3) / 4)  # of a Bernoulli variable at 1/4
    assert found.class_spread == pytest.approx(found.sample_spread)
    assert (found.saturated, found.dead, found.collapsed) == (1, 0, None)
    # of a unit vector from the mean of four, whose length is a half
    assert found.distance == pytest.approx(math.sqrt(0.75) / 0.5)


def test_one_expert_for_all():
    found = routing_statistics(torch.tensor([[0.98, 0.001, 0.001, 0.018]] * 3), EXPERTS)
    assert (found.dead, found.balance < 0.1, found.sample_spread) == (3, True, pytest.approx(0, abs=1e-9))
    assert found.collapsed == 'expert 0 has 98% of the routing'


def test_experts_that_are_one_kernel():
    alike = torch.ones(3, 8) + 1e-4 * torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    found = routing_statistics(torch.tensor([[0.2, 0.3, 0.5]]), alike)
    assert found.collapsed.startswith('its 3 experts are one kernel')
    assert routing_statistics(torch.tensor([[0.2, 0.3, 0.5]]), torch.eye(3)).collapsed is None


def test_a_single_expert_has_not_collapsed():
    found = routing_statistics(torch.tensor([[0.2], [0.8]]), torch.ones(1, 5))
    assert (found.entropy, found.balance, found.collapsed, found.use) == (1, 1, None, (1.0,))
    assert found.sample_spread == pytest.approx(0.3)


def test_classes_in_several_images_and_in_none():
    routing = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    present = torch.tensor([[True, False, False], [True, True, False], [False, False, False]])
    means = class_means(routing, present)
    assert means[:2].tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert means[2].isnan().all()
    assert routing_statistics(routing, torch.eye(2), present).class_spread == pytest.approx(0.25)


def test_scalars_have_names_of_their_own():
    scalars = routing_statistics(torch.full((2, 3), 0.5), torch.eye(3)).scalars()
    assert {'use_0', 'use_2', 'weight_1', 'entropy', 'balance', 'dead', 'saturated', 'distance'} <= set(scalars)
    assert all(isinstance(v, float) for v in scalars.values())
    assert 'samples' not in scalars


@pytest.mark.parametrize('shape', [(0, 4), (3, 2), (4,)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r'routing must be \(samples, 4 experts\), got'):
        routing_statistics(torch.zeros(shape), EXPERTS)


def test_recording_notes_every_layer_and_leaves_no_hook():
    model = torch.nn.Sequential(DynamicConv(3, 4, 1), torch.nn.ReLU(), DynamicConv(4, 2, 3, num_experts=2)).eval()
    x = torch.randn(5, 3, 8, 8)
    with record_routing(model) as seen:
        model(x[:2])
        model(x[2:])
    model(x)
    assert {name: [tuple(w.shape) for w in batches] for name, batches in seen.items()} == {
        '0': [(2, 4), (3, 4)],
        '2': [(2, 2), (3, 2)],
    }
    expected = model[0].router(x.mean((2, 3)))
    torch.testing.assert_close(torch.cat(seen['0']), expected)
    assert not seen['0'][0].requires_grad
    assert not any(m._forward_hooks for m in model.modules())
    assert list(dynamic_layers(model)) == ['0', '2']


def test_images_without_boxes_have_no_class():
    class Sample(dict):
        gt_instances = InstanceData(labels=torch.tensor([2, 2, 0]))

    class Unannotated(dict):
        gt_instances = InstanceData()  # of a test pipeline that loads no annotations

    samples = [Sample(gt_instances=1), Sample(), Unannotated(gt_instances=1)]
    assert present_classes(samples, 3).tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert present_classes(samples[:1], 1).tolist() == [[True]]  # labels that have no class are left out


def test_a_layer_that_only_training_runs_is_left_out():
    class Run:
        model = torch.nn.ModuleDict({'used': DynamicConv(3, 4, 1), 'aux': DynamicConv(3, 4, 1)})

    hook = RoutingHook()
    hook._start(Run)
    Run.model['used'](torch.randn(5, 3, 4, 4))
    assert list(hook._gathered(Run.model)) == ['used']


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """A short run of a detector, one layer of which uses one expert alone; everything that it logged."""
    from mmdyn.running.config_file import load_config
    from mmdyn.running.launch import build_runner

    folder = tmp_path_factory.mktemp('routed')
    cfg = load_config(
        str(ROOT / 'configs/yolo11n_dynconv-bn_digits.py'),
        {
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
            'train_dataloader.dataset.data_root': str(digits),
            'val_dataloader.dataset.data_root': str(digits),
            'test_dataloader.dataset.data_root': str(digits),
            'optim_wrapper.optimizer.lr': 1e-3,
            'default_hooks.logger.interval': 1,
            'visualizer.name': 'routed',
            'visualizer.vis_backends': [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        },
        str(folder),
        'none',
    )
    start = build_model(cfg)
    routing = start.backbone.stage3[0].conv.router
    with torch.no_grad():
        routing.weight.zero_()
        routing.bias.copy_(torch.tensor([9.0, -9.0, -9.0, -9.0]))
    cfg.load_from = str(folder / 'start.pth')
    torch.save(dict(state_dict=start.state_dict(), meta={}), cfg.load_from)
    runner = build_runner(cfg, train=True)
    runner.train()
    return folder, runner


@pytest.mark.slow
def test_every_backend_gets_every_layer(trained):
    pytest.importorskip('tensorboard', reason='needs requirements/dev.txt')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, runner = trained
    logged = {k: v for record in log_records(folder) for k, v in record.items() if k.startswith('routing/')}
    assert len([r for r in log_records(folder) if any(key in r for key in logged)]) == 1  # one call for all layers
    layers = {key.split('/')[1] for key in logged}
    assert layers == set(dynamic_layers(runner.model))
    assert logged['routing/backbone.stage3.0.conv/use_0'] > 0.99
    assert sum(logged[f'routing/backbone.stage1.0.conv/use_{m}'] for m in range(4)) == pytest.approx(1, abs=1e-6)
    assert not math.isnan(logged['routing/backbone.stage1.0.conv/class_spread'])
    events = EventAccumulator(str(next(folder.glob('*/vis_data/events*'))))
    events.Reload()
    shown = {tag: events.Scalars(tag) for tag in events.Tags()['scalars'] if tag.startswith('routing/')}
    assert {tag: pytest.approx(scalars[0].value, abs=1e-6, nan_ok=True) for tag, scalars in shown.items()} == logged
    assert {scalars[0].step for scalars in shown.values()} == {1}


@pytest.mark.slow
def test_experts_are_those_that_were_validated(trained):
    """The average's, as the checkpoint has them, not those of the last step."""
    folder, runner = trained
    logged = {k: v for record in log_records(folder) for k, v in record.items() if k.startswith('routing/')}
    validated = torch.load(folder / 'epoch_1.pth', weights_only=True)['state_dict']
    model = build_model(runner.cfg)
    model.load_state_dict({k: v for k, v in validated.items()})
    for name, layer in dynamic_layers(model).items():
        distance = routing_statistics(torch.ones(1, 4), layer.experts).distance
        assert logged[f'routing/{name}/distance'] == pytest.approx(distance, abs=1e-7)
    last = dynamic_layers(runner.model)['backbone.stage1.0.conv']
    away = routing_statistics(torch.ones(1, 4), last.experts).distance
    assert abs(away - logged['routing/backbone.stage1.0.conv/distance']) > 1e-6


@pytest.mark.slow
def test_the_log_warns_of_the_layer_that_collapsed_and_of_no_other(trained):
    folder, _ = trained
    text = next(folder.glob('*/*.log')).read_text()
    warnings = [line for line in text.splitlines() if 'have collapsed' in line]
    assert len(warnings) == 1
    assert 'WARNING' in warnings[0]
    assert re.search(r'\d of 6 dynamic convolutions have collapsed into static ones \(', warnings[0])
    assert re.findall(r'([\w.]+): expert \d has', warnings[0]) == ['backbone.stage3.0.conv']


@pytest.mark.slow
def test_a_test_is_diagnosed_like_a_validation(trained, digits):
    folder, runner = trained
    validated = {k: v for r in log_records(folder) for k, v in r.items() if k.startswith('routing/')}
    runner.test()  # the same images, the weights of the last step instead of their average
    tested = [r for r in log_records(folder) if any(k.startswith('routing/') for k in r)][-1]
    assert tested['step'] == 0
    for key, value in tested.items():
        assert key == 'step' or value == pytest.approx(validated[key], abs=1e-3, nan_ok=True)


@pytest.mark.slow
def test_a_hook_that_is_none_is_left_out(digits, tmp_path):
    from mmdyn.running.config_file import load_config
    from mmdyn.running.launch import build_runner

    options = {'test_dataloader.dataset.data_root': str(digits), 'default_hooks.routing': None}
    options |= {'default_hooks.channels_last': None, 'default_hooks.timer': None}
    options['visualizer.name'] = tmp_path.name  # MMEngine keeps visualizers by name, and warns of a second of a name
    runner = build_runner(
        load_config(str(ROOT / 'configs/yolo11n_dynconv_digits.py'), options, str(tmp_path), 'none'), train=False
    )
    kinds = {type(hook) for hook in runner.hooks}
    assert not kinds & {RoutingHook, ChannelsLastHook, IterTimerHook}
    assert {CheckpointGuardHook, LoggerHook} <= kinds


def test_weights_are_recorded_once_also_under_autocast():
    layer = DynamicConv(4, 4, 3)
    for enabled in (False, True):
        with torch.autocast('cpu', enabled=enabled), record_routing(layer) as recorded:
            layer(torch.rand(2, 4, 8, 8))
        assert [tuple(weights.shape) for weights in recorded['']] == [(2, 4)]
