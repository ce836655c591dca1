"""RunningNorm: standardises channels by statistics of the images seen before, never by those of the batch.

The pooled features of images differ by a few percent of their mean, so a router that sees them as they are gives all
images nearly the same weights. Batch statistics, as attention modules of dynamic convolutions have them, fail for one
image at a time. Here training and evaluation both use running statistics, and a sample does not depend on its batch.

Shapes: B batch, C channels.
"""

import torch
from torch import Tensor, nn

TINY = 1e-8  # added to the variance, so that a channel that was always zero is not amplified without bound


class RunningNorm(nn.Module):
    """Standardise channels by their running mean and variance.

    A training batch is standardised by the statistics before it, and then taken into them: the k-th batch with weight
    1 / k, at least ``momentum``. They are constants for the gradient. Before the first batch the layer is the identity.
    Activation checkpointing may run a layer again in the backward pass; it then uses the statistics of its last forward
    pass, so a layer that runs twice in one forward pass should not be checkpointed.

    State dict: ``mean`` (C), ``var`` (C), ``batches`` (), all floating-point so that averages of weights include them.

    Args:
        channels: Channels C.
        momentum: Smallest weight of a batch.
        eps: Share of the squared mean that is added to the variance: channels that vary by less than its root, 0.3 % of
            their mean, are not amplified to order one.

    Example:
        >>> norm = RunningNorm(8)
        >>> for _ in range(10):
        ...     y = norm(5 + 0.1 * torch.randn(64, 8))
        >>> bool(y.mean().abs() < 0.1), bool((y.std() - 1).abs() < 0.1)
        (True, True)
    """

    mean: Tensor
    var: Tensor
    batches: Tensor

    def __init__(self, channels: int, momentum: float = 0.01, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.momentum, self.eps = channels, momentum, eps
        self.register_buffer('mean', torch.zeros(channels))
        self.register_buffer('var', torch.ones(channels))
        self.register_buffer('batches', torch.zeros(()))
        self._last: tuple[Tensor, Tensor] | None = None  # scale and shift of the last training batch

    @torch.no_grad()
    def reset_statistics(self) -> None:
        """Forget all batches."""
        self.mean.zero_()
        self.var.fill_(1)
        self.batches.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        if not self.training:
            scale, shift = self.affine()
        elif self._last is not None and _in_backward():
            scale, shift = self._last
        else:
            scale, shift = self._last = self.affine()
            if x.shape[0]:
                self._track(x.detach())
        return torch.addcmul(shift, x, scale)

    @torch.no_grad()
    def _track(self, x: Tensor) -> None:
        """Take a batch into the statistics: mean and variance of the mixture of what was seen and the batch."""
        self.batches += 1
        share = self.batches.reciprocal().clamp(min=self.momentum).to(self.mean.dtype)
        var, mean = torch.var_mean(x, 0, correction=0)
        spread = (1 - share) * (mean - self.mean).square() + var
        self.var.lerp_(spread, share)
        self.mean.lerp_(mean, share)

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, (C) each, that are the same as this layer in evaluation."""
        scale = torch.rsqrt(self.var + self.eps * self.mean.square() + TINY)
        return scale, -self.mean * scale

    def __getstate__(self) -> dict:
        """Without what is kept for the backward pass."""
        return self.__dict__ | dict(_last=None)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'{self.channels}, momentum={self.momentum}, eps={self.eps}'


def _in_backward() -> bool:
    """Whether activation checkpointing runs a forward pass again, which has to give the same."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
