"""One line an epoch: loss, AP where it was validated, time spent and time left."""

import re
from types import SimpleNamespace

from mmengine.logging import MessageHub

from mmdyn.engine.hooks.epoch_line import EpochLineHook


def test_lines_of_a_training(capsys, monkeypatch):
    hub = MessageHub('test_epoch_line')
    runner = SimpleNamespace(epoch=0, max_epochs=10, message_hub=hub, train_dataloader=[None, None])
    clock = iter([0.0, 30.0, 60.0])
    monkeypatch.setattr('time.monotonic', lambda: next(clock))
    hook = EpochLineHook()
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for value in (7.0, 4.0, 2.0):  # the last two are of this epoch
        hub.update_scalar('train/loss', value)
    hook.after_train_epoch(runner)
    runner.epoch = 1
    hook.before_train_epoch(runner)
    assert capsys.readouterr().out == 'epoch  1/10  loss 3  00:30 spent, 04:30 left\n'
    hook.after_train_epoch(runner)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.9, 'coco/segm_mAP': 0.21449})  # that of the task
    runner.epoch = 2
    hook.after_train(runner)
    assert re.fullmatch(r'epoch  2/10  loss 3  AP 0.214  01:00 spent, 04:00 left\n', capsys.readouterr().out)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.5})  # a validation alone has no line
    hook.after_train(runner)
    assert capsys.readouterr().out == ''
