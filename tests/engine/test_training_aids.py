"""Training aids: temperature annealing, shared and separately trained routers."""

import copy

import pytest
import torch

from mmdyn import DynamicConv
from mmdyn.engine import TemperatureHook, YOLOOptimizerConstructor
from mmdyn.errors import UserError
from mmdyn.layers import C3k2_DynamicConv, dynamic_layers, fold_scale, upcycle
from mmdyn.layers.c3k2 import Bottleneck
from mmdyn.routing import record_routing

# ---- shared router ----


@pytest.mark.parametrize('c3k', [False, True])
def test_one_router_serves_the_block(c3k):
    """Equal to layers with routers of their own whose weights are given by hand."""
    torch.manual_seed(0)
    block = C3k2_DynamicConv(16, 16, num_blocks=2, c3k=c3k, shared_router=True).eval()
    x = torch.randn(3, 16, 8, 8)
    with record_routing(block) as seen:
        y = block(x)
    hidden = block.main_conv(x).chunk(2, dim=1)[1]
    expected = torch.sigmoid(hidden.mean((2, 3)) @ block.router.weight.T + block.router.bias)
    assert len(seen) == (4 if c3k else 2)
    for batches in seen.values():
        torch.testing.assert_close(batches[0], expected)
    for i in range(3):  # a sample's routing is its own
        torch.testing.assert_close(block(x[i : i + 1])[0], y[i], atol=1e-5, rtol=1e-5)
    assert [n for n, _ in block.named_parameters() if 'rout' in n] == ['router.weight', 'router.bias']


def test_a_shared_router_learns_from_all_its_layers_and_keeps_nothing_of_a_batch():
    block = C3k2_DynamicConv(8, 8, num_blocks=2, shared_router=True)
    block(torch.randn(2, 8, 6, 6)).square().sum().backward()
    assert block.router.weight.grad.abs().sum() > 0
    copy.deepcopy(block)  # as the EMA does
    with pytest.raises(ValueError, match='router=None needs routing weights'):
        next(iter(dynamic_layers(block).values()))(torch.randn(1, 4, 6, 6))


@pytest.mark.parametrize('c3k', [False, True])
def test_a_shared_router_survives_activation_checkpointing_and_exceptions(c3k):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    block = C3k2_DynamicConv(16, 16, num_blocks=2, c3k=c3k, shared_router=True)
    x = torch.randn(3, 16, 8, 8)
    expected = copy.deepcopy(block)
    expected(x).square().sum().backward()
    apply_activation_checkpointing(block, check_fn=lambda module: isinstance(module, Bottleneck))
    block(x).square().sum().backward()
    for ours, theirs in zip(block.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    with pytest.raises(RuntimeError):
        block(x[:, :8])
    copied = copy.deepcopy(block).eval()  # nothing of the failed batch is in it
    torch.testing.assert_close(copied(x), block.eval()(x))


def test_what_needs_a_router_of_its_own_refuses_a_shared_one():
    block = C3k2_DynamicConv(8, 8, shared_router=True)
    layer = next(iter(dynamic_layers(block).values()))
    with pytest.raises(ValueError, match='whose router is shared'):
        fold_scale(torch.ones(2), layer)
    with pytest.raises(UserError, match='shares its router'):
        upcycle(block, {})


# ---- temperature ----


class FakeRun:
    """As much of a runner as the hook reads."""

    def __init__(self, model, epochs, iterations):
        self.model, self.max_epochs, self.iter, self.train_dataloader = model, epochs, 0, range(iterations)


def test_temperature_falls_linearly_to_that_of_the_layer():
    model = torch.nn.Sequential(DynamicConv(3, 4, 1, routing='softmax', temperature=2.0))
    run, hook = FakeRun(model, 4, 10), TemperatureHook(begin=12.0, epochs=2)
    hook.before_train(run)
    seen = []
    for run.iter in range(40):
        hook.before_train_iter(run, 0)
        seen.append(model[0].router.temperature)
    assert seen[:21] == pytest.approx([12 - i / 2 for i in range(21)])
    assert set(seen[20:]) == {2.0}
    hook.after_train(run)
    assert model[0].router.temperature == 2.0


def test_a_shared_router_is_annealed_too():
    block = C3k2_DynamicConv(8, 8, routing='softmax', shared_router=True)
    run, hook = FakeRun(block, 2, 10), TemperatureHook(begin=5.0, epochs=1)
    hook.before_train(run)
    hook.before_train_iter(run, 0)
    assert block.router.temperature == 5.0


@pytest.mark.parametrize(
    ('hook', 'model', 'message'),
    [
        (TemperatureHook(epochs=5), DynamicConv(3, 4, 1), 'anneals for 5 epochs, but training has 4'),
        (TemperatureHook(epochs=2), torch.nn.Conv2d(3, 4, 1), 'the model has none'),
    ],
)
def test_annealing_that_cannot_end_is_refused(hook, model, message):
    with pytest.raises(UserError, match=message):
        hook.before_train(FakeRun(model, 4, 10))
    with pytest.raises(ValueError, match='begin and epochs must be positive'):
        TemperatureHook(begin=0)


# ---- parameter groups ----


def test_longer_keys_go_first_and_unknown_ones_are_named():
    model = torch.nn.Sequential(DynamicConv(3, 4, 1), torch.nn.BatchNorm2d(4))

    def build(keys):
        optimizer = dict(type='SGD', lr=1.0, weight_decay=0.1)
        cfg = dict(type='OptimWrapper', optimizer=optimizer)
        return YOLOOptimizerConstructor(cfg, dict(base_total_batch_size=64, custom_keys=keys))(model).optimizer

    groups = build({'routing': dict(lr_mult=2.0), 'routing.bias': dict(lr_mult=3.0)}).param_groups
    by_lr = {lr: sum(len(g['params']) for g in groups if g['lr'] == lr) for lr in (1.0, 2.0, 3.0)}
    assert by_lr == {1.0: 3, 2.0: 1, 3.0: 1}
    build({'routing': dict(lr_mult=2.0), 'routing.bias': {}, 'routing.weight': {}})  # nothing is left for the first
    with pytest.raises(ValueError, match=r"'routers', which is in no parameter name"):
        build({'routers': dict(lr_mult=2.0)})
