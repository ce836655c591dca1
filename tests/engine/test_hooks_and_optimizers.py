"""Schedule, accumulation, EMA, checkpoints and guards, each against its definition."""

import errno
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook
from torch import nn

from mmdyn.checkpoints import state_dict_differences
from mmdyn.engine import CloseMosaicHook, YOLOOptimWrapper, YOLOScheduleHook
from mmdyn.engine.hooks.checkpoint import AtomicLocalBackend
from mmdyn.errors import UserError
from mmdyn.running.config_file import load_config
from small_training import Line, runner_for


class Probe:
    """Notes what the optimizer works with in every iteration."""

    def __init__(self):
        from mmengine.hooks import Hook

        self.rows = rows = []

        class ProbeHook(Hook):
            priority = 'VERY_LOW'

            def before_train_iter(self, runner, batch_idx, data_batch=None):
                wrapper = runner.optim_wrapper
                rows.append(
                    [dict(g, params=None, accumulate=wrapper.accumulate) for g in wrapper.optimizer.param_groups]
                )

        self.hook = ProbeHook()


def published(iteration, epoch, per_epoch, epochs, accumulate, warmup_epochs=3):
    """Learning rate of weights and of biases, momentum and accumulation as the recipe has them."""
    factor = (1 - epoch / epochs) * 0.99 + 0.01
    warmup = max(round(warmup_epochs * per_epoch), 100)
    if iteration > warmup:
        return 0.01 * factor, 0.01 * factor, 0.937, accumulate
    t = iteration / warmup
    return (
        t * 0.01 * factor,
        0.1 + t * (0.01 * factor - 0.1),
        0.8 + t * 0.137,
        max(1, round(1 + t * (accumulate - 1))),
    )


def test_schedule_is_the_published_one(tmp_path):
    probe, epochs, per_epoch = Probe(), 8, 50
    hook = YOLOScheduleHook(lr_factor=0.01, warmup_epochs=3, warmup_momentum=0.8, warmup_bias_lr=0.1)
    optimizer = dict(type='SGD', lr=0.01, momentum=0.937, weight_decay=5e-4, nesterov=True)
    runner = runner_for(
        tmp_path,
        images=200,
        epochs=epochs,
        hooks=[hook, probe.hook],
        optim_wrapper=dict(type='YOLOOptimWrapper', optimizer=optimizer, constructor='YOLOOptimizerConstructor'),
    )
    runner.train()
    assert len(probe.rows) == epochs * per_epoch
    for iteration, (decayed, _norms, biases) in enumerate(probe.rows):
        lr, bias_lr, momentum, accumulate = published(iteration, iteration // per_epoch, per_epoch, epochs, 16)
        assert decayed['lr'] == pytest.approx(lr, rel=1e-9), iteration
        assert biases['lr'] == pytest.approx(bias_lr, rel=1e-9), iteration
        assert decayed['momentum'] == pytest.approx(momentum, rel=1e-9)
        assert decayed['accumulate'] == accumulate
        assert decayed['weight_decay'] == pytest.approx(5e-4)  # 4 x 16 is the nominal batch
        assert biases['weight_decay'] == 0
    assert type(decayed['lr']) is type(decayed['momentum']) is float


@pytest.mark.parametrize(('batch_size', 'scale'), [(128, 2.0), (64, 1.0), (24, 1.125), (4, 1.0)])
def test_weight_decay_follows_the_batch(tmp_path, batch_size, scale):
    probe = Probe()
    runner = runner_for(
        tmp_path, batch_size=batch_size, images=batch_size, epochs=1, hooks=[YOLOScheduleHook(), probe.hook]
    )
    runner.train()
    assert probe.rows[0][0]['weight_decay'] == pytest.approx(5e-4 * scale)


def test_accumulated_gradients_equal_one_large_batch():
    torch.manual_seed(0)
    small, data = Line(), torch.randn(12, 3)
    large = Line()
    large.load_state_dict(small.state_dict())
    wrapper = YOLOOptimWrapper(optimizer=torch.optim.SGD(small.parameters(), 0.01))
    wrapper.accumulate = 3
    stepped = []
    for part in data.split(4):
        with wrapper.optim_context(small):
            loss = (small.linear(part) ** 2).sum()
        wrapper.update_params(loss)
        stepped.append(wrapper.has_stepped)
    assert stepped == [False, False, True]
    optimizer = torch.optim.SGD(large.parameters(), 0.01)
    (large.linear(data) ** 2).sum().backward()
    optimizer.step()
    torch.testing.assert_close(small.linear.weight, large.linear.weight)


def test_accumulation_needs_a_wrapper_that_sums(tmp_path):
    runner = runner_for(
        tmp_path,
        hooks=[YOLOScheduleHook()],
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
    )
    with pytest.raises(UserError, match='sums gradients over 16 iterations: use YOLOOptimWrapper'):
        runner.train()


def ema_of(runner) -> nn.Module:
    return next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model.module


def test_ema_follows_the_steps_and_survives_channels_last(tmp_path):
    cfg = dict(
        type='YOLOEMAHook',
        ema_type='mmyolo.ExpMomentumEMA',
        momentum=1e-4,
        gamma=2000,
        update_buffers=True,
        priority=49,
    )
    weights = []

    class Trace(CloseMosaicHook):
        priority = 'HIGH'

        def before_train(self, runner):
            weights.append(runner.model.conv.weight.detach().clone())

        def after_train_iter(self, runner, *args, **kwargs):
            if runner.optim_wrapper.has_stepped:
                weights.append(runner.model.conv.weight.detach().clone())

    runner = runner_for(
        tmp_path,
        epochs=1,
        images=48,
        hooks=[
            cfg,
            dict(type='ChannelsLastHook'),
            Trace(0, []),
            YOLOScheduleHook(nominal_batch_size=8, warmup_epochs=0, warmup_mim_iter=0),
        ],
    )
    runner.train()
    assert runner.model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert len(weights) - 1 == 6  # twelve iterations, every second of them steps
    # MMEngine copies the model at the first update instead of averaging it.
    expected = weights[1].clone()
    for steps, weight in enumerate(weights[2:], 1):
        momentum = (1 - 1e-4) * math.exp(-(1 + steps) / 2000) + 1e-4
        expected = (1 - momentum) * expected + momentum * weight
    torch.testing.assert_close(ema_of(runner).conv.weight, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(('epochs', 'last', 'switch'), [(600, 10, 590), (16, 10, 8), (1, 10, 1)])
def test_mosaic_closes_counted_from_the_end(epochs, last, switch):
    hook = CloseMosaicHook(last, 'last_epochs_pipeline')

    class FakeRunner:
        max_epochs = epochs
        cfg = ConfigDict(last_epochs_pipeline=[dict(type='LoadImageFromFile')])

    hook.before_train(FakeRunner)
    assert hook.switch_epoch == switch
    assert hook.switch_pipeline == [dict(type='LoadImageFromFile')]


class DiskFull:
    """Makes writing fail after some bytes, as a full disk does."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def start(self):
        from mmengine.fileio import LocalBackend

        def put(self, obj, filepath):
            with open(filepath, 'wb') as file:
                file.write(obj[: len(obj) // 2])
            raise OSError(errno.ENOSPC, 'No space left on device', filepath)

        self.monkeypatch.setattr(LocalBackend, 'put', put)


@pytest.mark.parametrize('keep', [1, 2, -1])
def test_full_disk_leaves_the_previous_checkpoint_whole(tmp_path, monkeypatch, keep):
    disk = DiskFull(monkeypatch)

    class FullAtEpochThree(CloseMosaicHook):
        def before_train_epoch(self, runner):
            if runner.epoch == 2:
                disk.start()

    runner = runner_for(
        tmp_path,
        epochs=4,
        hooks=[FullAtEpochThree(0, [])],
        default_hooks=dict(
            param_scheduler=None, checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=keep)
        ),
    )
    with pytest.raises(OSError, match='No space left'):
        runner.train()
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last.endswith('epoch_2.pth')
    assert torch.load(last, weights_only=True)['meta']['epoch'] == 2
    assert not list(tmp_path.glob('*.partial'))
    assert not (tmp_path / 'epoch_3.pth').exists()


def test_old_checkpoints_go_once_the_new_one_is_there(tmp_path):
    checkpoint = dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2)
    runner_for(tmp_path, epochs=5, default_hooks=dict(param_scheduler=None, checkpoint=checkpoint)).train()
    assert {p.name for p in tmp_path.glob('*.pth')} == {'epoch_4.pth', 'epoch_5.pth'}


def test_atomic_backend_replaces_whole_files(tmp_path, monkeypatch):
    target = tmp_path / 'file'
    AtomicLocalBackend().put(b'first', str(target))
    DiskFull(monkeypatch).start()
    with pytest.raises(OSError, match='No space left'):
        AtomicLocalBackend().put(b'second', str(target))
    assert target.read_bytes() == b'first'
    assert list(tmp_path.iterdir()) == [target]


def test_differences_names_every_kind():
    a, b = Line().state_dict(), Line(width=4).state_dict()
    b['extra'] = b.pop('conv.bias')
    assert state_dict_differences(a, b) == [
        'missing conv.bias (2,)',
        'linear.weight is (1, 4), the model has (1, 3)',
        'unexpected extra (2,)',
    ]
    assert state_dict_differences(a, a) == []


GUARD = dict(type='CheckpointGuardHook')


def checkpoint_of(tmp_path, model) -> str:
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'other.pth')
    return str(tmp_path / 'other.pth')


def test_fine_tuning_takes_what_fits(tmp_path):
    source = Line(width=4)
    runner = runner_for(tmp_path, epochs=0, hooks=[GUARD], load_from=checkpoint_of(tmp_path, source))
    runner.train()
    assert torch.equal(runner.model.conv.weight, source.conv.weight)


def test_fine_tuning_from_something_else_altogether_is_refused(tmp_path):
    runner = runner_for(tmp_path, hooks=[GUARD], load_from=checkpoint_of(tmp_path, nn.Linear(7, 7)))
    with pytest.raises(UserError, match='another architecture.*missing linear.weight'):
        runner.train()


def test_resuming_another_architecture_is_refused(tmp_path):
    runner = runner_for(tmp_path, hooks=[GUARD], load_from=checkpoint_of(tmp_path, Line(width=4)), resume=True)
    with pytest.raises(UserError, match=r'linear.weight is \(1, 4\), the model has \(1, 3\)'):
        runner.train()


def test_cpu_amp_says_when_the_cpu_cannot(monkeypatch):
    from mmdyn.engine import YOLOCPUAmpOptimWrapper
    from mmdyn.host import environment

    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    monkeypatch.setattr(environment, 'cpu_flags', lambda: {'avx2'})
    with pytest.raises(UserError, match='needs native bf16.*Omit --amp'):
        YOLOCPUAmpOptimWrapper(optimizer=optimizer)
    monkeypatch.setattr(environment, 'cpu_flags', lambda: {'avx512_bf16'})
    wrapper = YOLOCPUAmpOptimWrapper(optimizer=optimizer)
    layer = nn.Linear(3, 3)
    with wrapper.optim_context(layer):
        assert layer(torch.randn(2, 3)).dtype == torch.bfloat16


@pytest.mark.parametrize('kind', ['OptimWrapper', 'YOLOOptimWrapper', 'YOLOCPUAmpOptimWrapper', 'ApexOptimWrapper'])
def test_amp_keeps_the_kind_of_accumulation(kind):
    from mmengine.config import Config

    from mmdyn.running.amp import enable_amp

    cfg = Config(dict(optim_wrapper=dict(type=kind, accumulative_counts=4)))
    if kind == 'ApexOptimWrapper':
        with pytest.raises(UserError, match='--amp replaces OptimWrapper or YOLOOptimWrapper'):
            enable_amp(cfg)
        return
    enable_amp(cfg)
    assert 'Amp' in cfg.optim_wrapper.type
    assert cfg.optim_wrapper.type.startswith('YOLO') == kind.startswith('YOLO')


class Detector(Line):
    class bbox_head:
        num_classes = 2


@pytest.mark.parametrize(
    ('train', 'val', 'message'),
    [
        (('a', 'b'), ('a', 'b'), None),
        (('a', 'b', 'c'), ('a', 'b', 'c'), 'num_classes=2, but the data set train.json has 3 classes: a, b, c.'),
        (('a', 'b'), ('b', 'a'), 'the training set has 2 classes: a, b; but the data set val.json has 2 classes: b, a'),
    ],
    ids=['same', 'count', 'order'],
)
def test_classes_must_agree(train, val, message):
    from types import SimpleNamespace

    from mmdyn.engine import ClassCheckHook

    def loader(classes, name):
        return SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes, ann_file=f'{name}.json')))

    runner = SimpleNamespace(
        model=Detector(), val_loop=1, train_dataloader=loader(train, 'train'), val_dataloader=loader(val, 'val')
    )
    if message is None:
        ClassCheckHook().before_train(runner)
        return
    with pytest.raises(UserError, match=message):
        ClassCheckHook().before_train(runner)


def test_keypoints_must_agree():
    from types import SimpleNamespace

    from mmdyn.engine import ClassCheckHook

    class Posed(Line):
        bbox_head = SimpleNamespace(num_classes=1, keypoint_shape=(17, 3))

    def runner(keypoints):
        dataset = SimpleNamespace(metainfo=dict(classes=('a',), ann_file='val.json'), keypoints=keypoints)
        return SimpleNamespace(model=Posed(), test_dataloader=SimpleNamespace(dataset=dataset))

    ClassCheckHook().before_test(runner((17, 2)))
    ClassCheckHook().before_test(runner((0, 0)))  # of a data set that wraps another
    with pytest.raises(
        UserError, match=r'the model has 17 keypoints, but the data set val.json has 5. Set .* \(5, 2\)'
    ):
        ClassCheckHook().before_test(runner((5, 3)))


def test_checkpoint_of_other_classes_is_not_tested():
    from types import SimpleNamespace

    from mmdyn.engine import ClassCheckHook

    dataset = SimpleNamespace(metainfo=dict(classes=('a', 'b')))
    runner = SimpleNamespace(model=Detector(), test_dataloader=SimpleNamespace(dataset=dataset))
    hook = ClassCheckHook()
    hook.after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))))
    hook.before_test(runner)
    hook.after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=('b', 'a')))))
    with pytest.raises(UserError, match='the checkpoint has 2 classes: b, a'):
        hook.before_test(runner)


@pytest.mark.parametrize('optimizer', ['SGD', 'AdamW'])
def test_norms_and_biases_do_not_decay(optimizer):
    from mmdyn.engine import YOLOOptimizerConstructor

    cfg = dict(type='YOLOOptimWrapper', optimizer=dict(type=optimizer, lr=0.1, weight_decay=5e-4))
    groups = YOLOOptimizerConstructor(cfg)(Line()).optimizer.param_groups
    assert [group['weight_decay'] for group in groups] == [5e-4, 0, 0]


def test_resumed_accumulation_waits_for_its_full_sum():
    wrapper = YOLOOptimWrapper(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1))
    wrapper.initialize_count_status(nn.Linear(1, 1), 10, 100)
    wrapper.accumulate = 4
    stepped = []
    for _ in range(8):
        wrapper.update_params(torch.ones((), requires_grad=True))
        stepped.append(wrapper.has_stepped)
    assert stepped == [False, False, False, True] * 2


def test_averaging_and_summing_are_not_mixed():
    with pytest.raises(ValueError, match='accumulative_counts=4 averages gradients'):
        YOLOOptimWrapper(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1), accumulative_counts=4)


def test_full_disk_does_not_lose_the_name_of_the_last_checkpoint(tmp_path, monkeypatch):
    import builtins

    opened = builtins.open

    def full(path, mode='r', *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        if str(path).endswith('last_checkpoint') and mode == 'w' and (tmp_path / 'epoch_3.pth').exists():
            file.close()  # emptied by now
            raise OSError(errno.ENOSPC, 'No space left on device', path)
        return file

    checkpoint = dict(type='AtomicCheckpointHook', interval=1)
    runner = runner_for(tmp_path, epochs=4, default_hooks=dict(param_scheduler=None, checkpoint=checkpoint))
    monkeypatch.setattr(builtins, 'open', full)
    with pytest.raises(OSError, match='No space left'):
        runner.train()
    monkeypatch.undo()
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert not (tmp_path / 'last_checkpoint.before').exists()


def test_fine_tuning_from_a_bare_state_dict(tmp_path):
    source = Line()
    torch.save(source.state_dict(), tmp_path / 'bare.pth')
    ema = dict(type='YOLOEMAHook', priority=49)
    runner = runner_for(tmp_path, epochs=0, hooks=[GUARD, ema], load_from=str(tmp_path / 'bare.pth'))
    runner.train()
    assert torch.equal(runner.model.conv.weight, source.conv.weight)
    assert torch.equal(ema_of(runner).conv.weight, source.conv.weight)


def test_average_starts_from_the_weights_that_training_starts_from(tmp_path):
    """The first step counts like every other: MMEngine's own average would be the first step's weights."""
    source = Line()
    torch.save(source.state_dict(), tmp_path / 'bare.pth')
    ema = dict(type='YOLOEMAHook', momentum=0.0001, gamma=2000, priority=49)
    runner = runner_for(tmp_path, images=4, epochs=1, hooks=[GUARD, ema], load_from=str(tmp_path / 'bare.pth'))
    runner.train()
    decay = 0.9999 * (1 - math.exp(-1 / 2000))
    expected = decay * source.conv.weight + (1 - decay) * runner.model.conv.weight
    assert not torch.equal(source.conv.weight, runner.model.conv.weight)
    torch.testing.assert_close(ema_of(runner).conv.weight, expected)


@pytest.mark.parametrize(
    ('warmup_epochs', 'epochs', 'first_rates'), [(0, 2, [0.01] * 4), (5, 2, [0.0, 0.0025, 0.005, 0.0075])]
)
def test_warm_up_ends_before_the_last_epoch(tmp_path, warmup_epochs, epochs, first_rates):
    probe = Probe()
    hook = YOLOScheduleHook(warmup_epochs=warmup_epochs, nominal_batch_size=None)
    runner_for(tmp_path, images=16, epochs=epochs, hooks=[hook, probe.hook]).train()
    rates = [groups[0]['lr'] for groups in probe.rows]
    assert rates[:4] == pytest.approx(first_rates)
    assert rates[4:] == pytest.approx([0.01 * (0.5 * 0.99 + 0.01)] * 4)


def test_an_epoch_of_one_iteration_has_its_own_rate(tmp_path):
    """Also right after the warm-up, which ends with the first iteration of an epoch."""
    probe = Probe()
    hook = YOLOScheduleHook(warmup_epochs=3, nominal_batch_size=None)
    runner_for(tmp_path, images=4, epochs=8, hooks=[hook, probe.hook]).train()
    rates = [groups[0]['lr'] for groups in probe.rows]
    assert rates[3:] == pytest.approx([0.01 * ((1 - epoch / 8) * 0.99 + 0.01) for epoch in range(3, 8)])


@pytest.mark.parametrize('key', ['compile', 'sync_bn', 'model_wrapper_cfg', 'keep_freed_memory'])
def test_what_the_runner_takes_from_the_config_is_no_word_of_the_file(tmp_path, key):
    (tmp_path / 'config.py').write_text(f'{key} = 1\nmy_sizes = 2\n')
    assert load_config(str(tmp_path / 'config.py'), {key: 3}, None, 'none')[key] == 3
    with pytest.raises(UserError, match="'my_sizes' is only read while the config file is parsed"):
        load_config(str(tmp_path / 'config.py'), {'my_sizes': 3}, None, 'none')


def test_every_parameter_is_in_a_group():
    """Also those that are no weight and no bias: a folded dynamic layer has a shared bias."""
    from mmdyn.engine import YOLOOptimizerConstructor
    from mmdyn.layers import DynamicConv, fold_batch_norms

    model = nn.Sequential(DynamicConv(4, 4, 3), nn.BatchNorm2d(4)).eval()
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    fold_batch_norms(model).register_parameter('scale', nn.Parameter(torch.ones(2, 2)))
    groups = YOLOOptimizerConstructor(cfg)(model).optimizer.param_groups
    assert sorted(id(p) for g in groups for p in g['params']) == sorted(id(p) for p in model.parameters())
    assert any(p is model[0].shared_bias for p in groups[2]['params'])
    assert any(p is model.scale for p in groups[0]['params'])


def test_only_hooks_that_average_are_left_out_of_a_test():
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    from mmdyn.running.testing import drop_ema

    @HOOKS.register_module()
    class SchEMAHook(Hook):
        pass

    own = [dict(type='YOLOEMAHook'), dict(type='SchEMAHook'), dict(type=EMAHook), dict(type='CloseMosaicHook')]
    cfg = ConfigDict(custom_hooks=own)
    drop_ema(cfg)
    assert [hook['type'] for hook in cfg.custom_hooks] == ['SchEMAHook', 'CloseMosaicHook']
