"""A training that takes no time: a small model on random numbers, in MMEngine's own runner."""

import itertools

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader


class Line(BaseModel):
    """A model of a weight, a bias and a convolution, whose loss is a sum over its batch."""

    def __init__(self, width=3):
        super().__init__()
        self.linear = nn.Linear(width, 1)
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x, mode='loss'):
        if mode == 'predict':
            return list(x)
        loss = (self.linear(x) ** 2).sum() + self.conv.weight.square().sum() * 1e-3
        return dict(loss=loss) if mode == 'loss' else loss


_numbers = itertools.count()


def loader(images: int, batch_size: int) -> DataLoader:
    """Random numbers in batches."""
    return DataLoader(torch.randn(images, 3), batch_size, collate_fn=lambda items: dict(x=torch.stack(items)))


def runner_for(tmp_path, *, batch_size=4, images=32, epochs=2, hooks=(), **kwargs) -> Runner:
    """A runner of ``epochs`` epochs; ``kwargs`` are the runner's."""
    torch.manual_seed(0)
    defaults = dict(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=loader(images, batch_size),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            type='YOLOOptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)
        ),
        default_hooks=dict(param_scheduler=None, checkpoint=None),
        custom_hooks=list(hooks),
        experiment_name=f'run-{tmp_path.name}-{next(_numbers)}',
        log_level='ERROR',
    )
    return Runner(**{**defaults, **kwargs})
