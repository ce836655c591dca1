"""A training step asks a GPU for no value and copies nothing to it: shapes are known from what the loader counted.

Tensors are fake ones of a GPU, so none is needed. A dispatch mode refuses copies between devices, which fake tensors
alone let pass.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmdyn.models import build_model
from mmdyn.running import load_config

CONFIGS = ('yolo11n_digits', 'segment/yolo11n_digits', 'pose/yolo11n_digits', 'obb/yolo11n_digits')
COUNTS = (3, 0, 40)
SIZE = 64


class CopyRefusedError(Exception):
    """A tensor goes from one device to another."""


class OneDevice(TorchDispatchMode):
    """Refuse what mixes devices, but for scalars of the CPU, which are passed with a kernel's arguments."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.ndim or func in (torch.ops.aten._to_copy.default,)}
        if len(devices) > 1:
            raise CopyRefusedError(f'{func} has tensors of {sorted(devices)}')
        return result


def step(model, spoil=lambda losses: losses):
    """The loss of a batch, with every tensor on a GPU that is not there; backward would need its driver."""
    with FakeTensorMode(allow_non_fake_inputs=True), OneDevice():
        images = torch.empty(len(COUNTS), 3, SIZE, SIZE, device='cuda')
        samples = dict(
            bboxes_labels=torch.empty(sum(COUNTS), 6, device='cuda'),
            counts=COUNTS,
            keypoints=torch.empty(sum(COUNTS), 5, 2, device='cuda'),
            keypoints_visible=torch.empty(sum(COUNTS), 5, device='cuda'),
            oriented_boxes=torch.empty(sum(COUNTS), 5, device='cuda'),
            masks=torch.empty(len(COUNTS), SIZE // 4, SIZE // 4, dtype=torch.int32, device='cuda'),
            img_metas=[dict(batch_input_shape=(SIZE, SIZE))] * len(COUNTS),
        )
        return sum(spoil(model(images, samples, mode='loss')).values())


@pytest.fixture(scope='module', params=CONFIGS)
def model(request):
    with FakeTensorMode(), torch.device('cuda'):
        return build_model(load_config(request.param)).train()


def test_a_step_waits_for_nothing(model):
    assert step(model).device.type == 'cuda'


@pytest.mark.parametrize(
    ('plant', 'error'),
    [
        (lambda x: x * x.item(), DataDependentOutputException),
        (lambda x: x * (x if x > 0 else 1), DataDependentOutputException),
        (lambda x: x + x[None].nonzero().sum(), DynamicOutputShapeException),
        (lambda x: x + x[None][x[None] > 0].sum(), DynamicOutputShapeException),
        (lambda x: x + x[None].cpu().cuda().sum(), CopyRefusedError),
        (lambda x: x + torch.tensor([1.0], device='cuda').sum(), CopyRefusedError),
        (lambda x: x + x.new_tensor([1.0, 2.0]).sum(), CopyRefusedError),
    ],
    ids=['item', 'if', 'nonzero', 'boolean index', 'cpu', 'tensor of a list', 'new_tensor'],
)
def test_every_way_of_waiting_is_noticed(model, plant, error):
    with pytest.raises(error):
        step(model, lambda losses: losses | dict(loss_cls=plant(losses['loss_cls'])))
