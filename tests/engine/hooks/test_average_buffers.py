"""Which buffers are averaged over the processes; tests/engine/test_processes.py shows two real processes."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, IterTimerHook
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmdyn.engine.hooks import average_buffers as module


@pytest.fixture
def averaged(monkeypatch):
    """What is handed to MMEngine's reduction, as in a run of several processes."""
    calls = []
    monkeypatch.setattr(module, 'is_distributed', lambda: True)
    monkeypatch.setattr(module, 'all_reduce_params', lambda buffers, op: calls.append((list(buffers), op)))
    return calls


def runner_of(*hooks) -> SimpleNamespace:
    return SimpleNamespace(model=nn.BatchNorm1d(2), hooks=[IterTimerHook(), *hooks])


def test_floating_point_buffers_of_the_model(averaged):
    runner = runner_of()
    module.average_buffers(runner)
    (buffers, op), *others = averaged
    assert others == []
    assert op == 'mean'
    assert [id(b) for b in buffers] == [id(runner.model.running_mean), id(runner.model.running_var)]


def test_those_of_the_average_from_when_it_is_there(averaged):
    hook = EMAHook()
    runner = runner_of(hook)
    module.average_buffers(runner)  # before the run: the hook has no average yet
    hook.ema_model = ExponentialMovingAverage(runner.model)
    module.average_buffers(runner)
    assert [len(buffers) for buffers, _ in averaged] == [2, 4]


def test_one_process_averages_nothing(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(module, 'all_reduce_params', fail)
    module.average_buffers(runner_of())
    assert torch.equal(runner_of().model.running_mean, torch.zeros(2))
