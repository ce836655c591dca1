"""The schedule where batches come from a sampler, and where a loop counts iterations."""

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mmdyn.engine import YOLOScheduleHook
from mmdyn.errors import UserError
from small_training import runner_for


class Pairs(BatchSampler):
    """A batch sampler that keeps its size to itself."""

    def __init__(self, data):
        super().__init__(SequentialSampler(data), 2, False)
        del self.batch_size

    def __iter__(self):
        yield from ([i, i + 1] for i in range(0, len(self.sampler), 2))

    def __len__(self):
        return len(self.sampler) // 2


def sampled(sampler) -> DataLoader:
    data = torch.randn(16, 3)
    return DataLoader(data, batch_sampler=sampler(data), collate_fn=lambda items: dict(x=torch.stack(items)))


def test_batch_of_a_batch_sampler(tmp_path):
    loader = sampled(lambda data: BatchSampler(SequentialSampler(data), 4, False))
    hook = YOLOScheduleHook(nominal_batch_size=8)
    runner_for(tmp_path, hooks=[hook], train_dataloader=loader).train()
    assert hook._accumulate == 2


def test_batch_that_nobody_says(tmp_path):
    runner = runner_for(tmp_path, hooks=[YOLOScheduleHook()], train_dataloader=sampled(Pairs))
    with pytest.raises(UserError, match='the batch size is unknown, as Pairs has no batch_size: set nominal_batch'):
        runner.train()
    runner_for(tmp_path, hooks=[YOLOScheduleHook(nominal_batch_size=None)], train_dataloader=sampled(Pairs)).train()


def test_loop_of_iterations_is_refused(tmp_path):
    runner = runner_for(tmp_path, hooks=[YOLOScheduleHook()], train_cfg=dict(by_epoch=False, max_iters=4))
    with pytest.raises(UserError, match='YOLOScheduleHook counts epochs, and train_cfg is IterBasedTrainLoop: set'):
        runner.train()
