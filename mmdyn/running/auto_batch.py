"""The largest batch that fits into a GPU, from the memory of measured training steps. Not tried on a GPU yet."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from mmdyn.errors import UserError
from mmdyn.models.build import build_model
from mmdyn.models.yolo11_detector import DETECTORS

from .image_channels import image_channels
from .image_size import STRIDE, image_size
from .training_options import MULTI_SCALE

TRIED = (1, 2, 4, 8, 16)
SHARE = 0.7  # of the memory, as images have different numbers of objects
OBJECTS = 20  # an image


def largest_batch(memory: Callable[[int], float], capacity: float, tried: Sequence[int] = TRIED) -> int:
    """The batch that fills a share of the memory, from a line through the measured steps.

    Args:
        memory: Bytes that a step takes at a batch size; raises ``torch.OutOfMemoryError`` if it does not fit.
        capacity: Bytes that there are.
        tried: Batch sizes to measure, in ascending order.

    Raises:
        UserError: A batch of one does not fit.

    Example:
        >>> largest_batch(lambda batch: 1e9 + batch * 0.5e9, capacity=20e9)
        26
    """
    measured: dict[int, float] = {}
    for batch in tried:
        try:
            measured[batch] = memory(batch)
        except torch.OutOfMemoryError:
            break
    if len(measured) < 2:
        if measured:
            return 1
        raise UserError('--batch -1: not even one image fits into the memory of the GPU: set a smaller --imgsz')
    slope, fixed = np.polyfit([*measured], [*measured.values()], 1)
    return max(int((SHARE * capacity - fixed) / slope + 1e-6), 1) if slope > 0 else max(measured)


def measured_batch(cfg: Config) -> int:
    """The largest batch of a config on this machine's GPU.

    Args:
        cfg: Config.

    Raises:
        UserError: There is no GPU, there are several, or one image does not fit.
    """
    if not torch.cuda.is_available():
        raise UserError(
            '--batch -1 takes as many images as fit into the memory of a GPU, and there is none here. On a CPU larger '
            'batches are no faster: set --batch 8 or 16'
        )
    if cfg.get('launcher', 'none') != 'none' or cfg.model.type not in DETECTORS:
        raise UserError('--batch -1 measures a YOLO11 on one GPU: set a number for other detectors and several GPUs')
    height, width = image_size(cfg)
    if cfg.model.data_preprocessor.get('batch_augments'):  # the largest of several sizes
        height, width = (math.ceil((1 + MULTI_SCALE) * side / STRIDE) * STRIDE for side in (height, width))
    model = build_model(cfg).cuda().train()
    free, _ = torch.cuda.mem_get_info()
    half = 'Amp' in cfg.optim_wrapper.get('type', '')

    def memory(batch: int) -> float:
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast('cuda', enabled=half):
            losses = _training_losses(model, batch, image_channels(cfg), (height, width))
        torch.stack([*losses.values()]).sum().backward()
        model.zero_grad()
        return torch.cuda.max_memory_allocated()

    return largest_batch(memory, free)


def _training_losses(model: nn.Module, batch: int, channels: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Losses of random images with random boxes."""
    device = next(model.parameters()).device
    corners = torch.rand(batch * OBJECTS, 2, 2, device=device).sort(1).values.flatten(1)  # left, top, right, bottom
    boxes = corners * torch.tensor([size[1], size[0]] * 2, device=device)
    owners = torch.arange(batch, device=device).repeat_interleave(OBJECTS)[:, None]
    targets = torch.cat([owners, torch.zeros_like(owners), boxes], 1)
    data = dict(bboxes_labels=targets, img_metas=[dict(batch_input_shape=size)] * batch)
    return model(torch.rand(batch, channels, *size, device=device), data, mode='loss')
