"""FLOPs and parameters, counted per operator.

PyTorch's ``FlopCounterMode`` sees every convolution and matrix product as it runs, so the per-sample convolutions of
a DynamicConv, the mixing of its experts and its router are counted like any layer. A counter that hooks modules
misses them, which explains published figures of 4.8 GFLOPs against 6.6. Batch norm, activations and pooling are not
counted, as usual.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdyn.errors import UserError
from mmdyn.models.build import input_channels, run_network


class Cost(NamedTuple):
    """Parameters and multiply-adds for one image."""

    parameters: int
    macs: int
    by_part: dict[str, int]  # multiply-adds of backbone, neck, head

    @property
    def flops(self) -> int:
        """Two for every multiply-add."""
        return 2 * self.macs


def count_cost(model: nn.Module, height: int, width: int) -> Cost:
    """Count the parameters and multiply-adds of a detector for one image.

    Args:
        model: Detector, as in :func:`run_network`.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Trainable parameters and multiply-adds of batch 1.

    Raises:
        UserError: The model does not accept an image of this size.
    """
    image = torch.zeros(1, input_channels(model), height, width, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            run_network(model, image)
        except Exception as e:  # a detector of another package may raise any error
            raise UserError(
                f'{type(model).__name__} does not accept {height} x {width} pixels ({str(e) or type(e).__name__}), so '
                'its cost cannot be counted: set multiples of 32'
            ) from e
    total, name = counter.get_total_flops() // 2, type(model).__name__
    parts = {child: sum(counter.flop_counts[f'{name}.{child}'].values()) // 2 for child, _ in model.named_children()}
    # MMEngine calls methods of the head, not the head itself, so the counter sees not all of it as a module.
    parts = {child: macs for child, macs in parts.items() if macs and child not in ('head', 'bbox_head')}
    parts['head'] = total - sum(parts.values())
    return Cost(sum(p.numel() for p in model.parameters() if p.requires_grad), total, parts)
