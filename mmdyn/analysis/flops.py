"""FLOPs and parameters, counted where the arithmetic happens.

PyTorch's ``FlopCounterMode`` sees every convolution and matrix product as it runs, so the per-sample convolutions of
a DynamicConv, the mixing of its experts and its router count as much as any layer. A counter that hooks modules
misses them, which is where published figures of 4.8 GFLOPs against 6.6 come from. Batch norm, activations and pooling
are not counted, as usual.
"""

import copy
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdyn.errors import UserError


class Cost(NamedTuple):
    """What one image costs."""

    parameters: int
    macs: int
    by_part: dict[str, int]  # multiply-adds of backbone, neck, head

    @property
    def flops(self) -> int:
        """Two for every multiply-add."""
        return 2 * self.macs


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config in its own scope, in eval mode.

    Args:
        cfg: Config with ``model`` and ``default_scope``; stays as it is, where mmdet's detectors write into theirs.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return MODELS.build(copy.deepcopy(cfg.model)).eval()


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width that a config validates at, from the last resizing step; 640 where it has none.

    Args:
        cfg: Config.
    """
    described = (cfg.get('val_dataloader') or {}).get('dataset', {})
    while 'pipeline' not in described and 'dataset' in described:  # wrapped
        described = described.dataset
    scales = [step['scale'] for step in described.get('pipeline', ()) if 'scale' in step]
    scale = scales[-1] if scales else 640
    width, height = (scale, scale) if isinstance(scale, int) else scale
    return height, width


def run_network(model: nn.Module, images: Tensor) -> Any:
    """Run a detector's network, without boxes.

    Args:
        model: Detector whose ``forward(inputs, data_samples, mode='tensor')`` is MMEngine's.
        images: Images, (B, 3, H, W). Detectors of two stages are told their size, too.

    Returns:
        What the model does.
    """
    size = tuple(images.shape[2:])
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    samples = [DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0))) for _ in images]
    return model(images, samples, mode='tensor')


def count_cost(model: nn.Module, height: int, width: int) -> Cost:
    """Count one image through a detector.

    Args:
        model: Detector, as in :func:`run_network`.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Trainable parameters and multiply-adds of batch 1.

    Raises:
        UserError: The model does not run on such an image.
    """
    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            run_network(model, image)
        except Exception as e:  # whatever a detector of another package makes of it
            raise UserError(
                f'{type(model).__name__} does not take {height} x {width} pixels ({str(e) or type(e).__name__}), so '
                'its cost cannot be counted: try multiples of 32'
            ) from e
    total, name = counter.get_total_flops() // 2, type(model).__name__
    parts = {child: sum(counter.flop_counts[f'{name}.{child}'].values()) // 2 for child, _ in model.named_children()}
    parts = {child: macs for child, macs in parts.items() if macs}
    # MMEngine calls a head's methods, not the head, so that it is never entered as a module.
    parts['head'] = total - sum(parts.values())
    return Cost(sum(p.numel() for p in model.parameters() if p.requires_grad), total, parts)
