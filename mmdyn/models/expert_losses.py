"""Losses that keep experts apart, and a YOLO detector that adds them to its own.

Balance of experts: Outrageously Large Neural Networks, Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538,
eq. 6 and 7: the squared coefficient of variation of their importance in a batch. Orthogonality: diverse experts by the
squared cosines of their weights, after https://arxiv.org/abs/2310.09762.

Shapes: B batch, M experts.
"""

import torch
from mmengine.dist import get_world_size
from mmyolo.models.detectors import YOLODetector
from mmyolo.registry import MODELS
from torch import Tensor

from mmdyn.layers import dynamic_layers, record_routing


def balance_loss(routing: Tensor) -> Tensor:
    """How unequally a batch uses the experts.

    Args:
        routing: Routing weights, (B, M).

    Returns:
        Squared coefficient of variation of the experts' summed weights: 0 for equal use, M - 1 for one expert alone.
    """
    importance = routing.float().sum(0)  # (M,)
    return importance.var(correction=0) / importance.mean().square().clamp(min=torch.finfo(torch.float32).tiny)


def orthogonality_loss(experts: Tensor) -> Tensor:
    """How alike the experts are.

    Args:
        experts: Expert kernels, (M, ...).

    Returns:
        Mean squared cosine over pairs of different experts: 0 for orthogonal, 1 for parallel ones; 0 for a single one.
    """
    count = len(experts)
    if count == 1:
        return experts.sum() * 0
    unit = torch.nn.functional.normalize(experts.float().flatten(1), dim=1)
    squares = (unit @ unit.T).square()  # (M, M)
    return (squares.sum() - squares.diagonal().sum()) / (count * (count - 1))


@MODELS.register_module()
class ExpertLossDetector(YOLODetector):
    """``YOLODetector`` with losses on the experts of its dynamic convolutions, each a mean over the layers.

    As the losses of a YOLO are summed over the batch, these are multiplied with its size.

    Args:
        *args: As in ``YOLODetector``.
        balance_weight: Weight of :func:`balance_loss`; 0 leaves it out.
        orthogonality_weight: Weight of :func:`orthogonality_loss`; 0 leaves it out.
        **kwargs: As in ``YOLODetector``.

    Raises:
        ValueError: A weight is negative, or the model has no dynamic convolution.
    """

    def __init__(self, *args, balance_weight: float = 0.0, orthogonality_weight: float = 0.0, **kwargs) -> None:
        if min(balance_weight, orthogonality_weight) < 0:
            raise ValueError(
                f'weights must not be negative, got balance_weight={balance_weight}, '
                f'orthogonality_weight={orthogonality_weight}'
            )
        super().__init__(*args, **kwargs)
        if not dynamic_layers(self):
            raise ValueError('the losses are on experts, and the model has no dynamic convolution')
        self.balance_weight, self.orthogonality_weight = balance_weight, orthogonality_weight

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict[str, Tensor]:
        """The losses of ``YOLODetector``, and those of the experts."""
        with record_routing(self, detach=False) as seen:
            losses = super().loss(batch_inputs, batch_data_samples)
        scale = len(batch_inputs) * get_world_size()
        if self.balance_weight:
            terms = [balance_loss(torch.cat(weights)) for weights in seen.values()]
            losses['loss_balance'] = self.balance_weight * scale * torch.stack(terms).mean()
        if self.orthogonality_weight:
            terms = [orthogonality_loss(layer.experts) for layer in dynamic_layers(self).values()]
            losses['loss_orthogonality'] = self.orthogonality_weight * scale * torch.stack(terms).mean()
        return losses
