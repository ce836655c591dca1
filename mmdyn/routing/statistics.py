"""Statistics of routing weights: which experts are used, how evenly, and whether this depends on the input.

The share of an expert in a sample is its routing weight over the sum of all; for softmax they are the same. Load and
importance of experts are those of mixtures of experts (https://arxiv.org/abs/1701.06538, section 4), entropy by sample
and over the batch that of Switch Transformers' balance (https://arxiv.org/abs/2101.03961).

Shapes: N samples, M experts, K classes, P parameters of a kernel.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

DEAD = 0.1  # share of an expert below which it is dead, as a fraction of an equal share
COLLAPSED = 0.95  # share of one expert from which the others do not count
SATURATED = 0.01  # distance of a weight from 0 or 1 below which its gradient is gone
ALIKE = 0.01  # distance between experts, relative to their mean, below which they are one kernel
CONSTANT = 1e-3  # deviation of a weight over samples below which all samples get the same kernel


class RoutingStatistics(NamedTuple):
    """Statistics of one layer.

    Example:
        >>> weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # two samples, two experts
        >>> statistics = routing_statistics(weights, torch.eye(2))
        >>> statistics.use, statistics.entropy, statistics.balance
        ((0.5, 0.5), 0.0, 1.0)
    """

    use: tuple[float, ...]  # mean share of every expert
    weight: tuple[float, ...]  # mean routing weight of every expert
    entropy: float  # of the shares of a sample, mean over samples; 1 is an equal mixture, 0 one expert
    balance: float  # entropy of the mean shares; 1 is equal use, 0 one expert for all samples
    sample_spread: float  # standard deviation of a weight over samples, mean over experts
    class_spread: float  # the same of the mean weights of the classes
    saturated: float  # fraction of weights at 0 or 1
    dead: int  # experts with hardly any weight in all samples
    distance: float  # of an expert from the mean expert, relative to it, mean over experts
    samples: int

    @property
    def collapsed(self) -> str | None:
        """The reason why the experts have collapsed, or None."""
        if len(self.use) == 1:
            return None
        if max(self.use) >= COLLAPSED:
            expert = max(range(len(self.use)), key=self.use.__getitem__)
            return f'expert {expert} has {self.use[expert]:.0%} of the routing'
        if self.distance < ALIKE:
            return f'its {len(self.use)} experts are one kernel, within {self.distance:.1%}'
        if self.samples > 1 and self.sample_spread < CONSTANT:
            return f'all images are mixed alike, with a spread of {self.sample_spread:.1g}'
        return None

    def scalars(self) -> dict[str, float]:
        """Every figure by name, experts by number."""
        single = {name: float(v) for name, v in self._asdict().items() if not isinstance(v, tuple)}
        del single['samples']
        return single | {f'{name}_{m}': v for name in ('use', 'weight') for m, v in enumerate(getattr(self, name))}


def _entropy(shares: Tensor) -> Tensor:
    """Entropy over the last dimension, relative to that of equal shares; 1 for a single expert."""
    if shares.shape[-1] == 1:
        return torch.ones(shares.shape[:-1], dtype=shares.dtype)
    return torch.special.entr(shares).sum(-1) / math.log(shares.shape[-1])


def class_means(routing: Tensor, present: Tensor) -> Tensor:
    """Mean routing weights of the images that contain a class.

    Args:
        routing: Routing weights, (N, M).
        present: Which classes are in which image, (N, K), bool.

    Returns:
        (K, M); NaN for classes in no image.
    """
    present = present.to(routing.dtype)
    return (present.T @ routing) / present.sum(0)[:, None]  # (K, M)


def routing_statistics(routing: Tensor, experts: Tensor, present: Tensor | None = None) -> RoutingStatistics:
    """Compute the statistics of a layer over a set of samples.

    Args:
        routing: Routing weights, (N, M).
        experts: Expert kernels, (M, ...).
        present: Which classes are in which sample, (N, K), bool; None leaves ``class_spread`` at NaN.

    Raises:
        ValueError: There is no sample, or the shapes do not match.
    """
    if routing.ndim != 2 or not len(routing) or len(experts) != routing.shape[1]:
        raise ValueError(f'routing must be (samples, {len(experts)} experts), got {tuple(routing.shape)}')
    routing = routing.detach().double().cpu()
    shares = routing / routing.sum(1, keepdim=True).clamp(min=torch.finfo(routing.dtype).tiny)  # (N, M)
    use = shares.mean(0)
    kernels = experts.detach().flatten(1).double().cpu()  # (M, P)
    mean = kernels.mean(0)
    class_spread = math.nan
    if present is not None:
        means = class_means(routing, present.cpu())
        class_spread = float(means[~means.isnan().any(1)].std(0, correction=0).mean())
    count = routing.shape[1]
    return RoutingStatistics(
        use=tuple(use.tolist()),
        weight=tuple(routing.mean(0).tolist()),
        entropy=float(_entropy(shares).mean()),
        balance=float(_entropy(use)),
        sample_spread=float(routing.std(0, correction=0).mean()),
        class_spread=class_spread,
        saturated=float(((routing < SATURATED) | (routing > 1 - SATURATED)).double().mean()),
        dead=int((shares.amax(0) < DEAD / count).sum()),
        distance=float(((kernels - mean).norm(dim=1) / mean.norm()).mean()),
        samples=len(routing),
    )
