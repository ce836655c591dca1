"""FDConv: a dynamic convolution whose experts are bands of frequencies of one kernel.

Frequency Dynamic Convolution, Chen et al., CVPR 2025, https://arxiv.org/abs/2503.18783, section 3.2: the spectrum of a
kernel is cut into disjoint bands, each of which is an expert, so that experts cost no parameters. Here this part of
the paper is a layer; what it does with the spectrum of feature maps is left out.

The kernels of all channels lie side by side in a plane of O * k by I/g * k values. Its frequencies, in the order of
their magnitude, are dealt to M bands of equal size. The bands of a kernel sum to the kernel.

Shapes: M experts, I O in and out channels, g groups, k kernel size, P = O * I/g * k * k.
"""

import math

import torch
from torch import Tensor, nn

from mmdyn.registry import MODELS

from .dynamic_conv import DynamicConv
from .execution import Pair
from .router import RouterConfig


def frequency_bands(height: int, width: int, number: int) -> Tensor:
    """The band of every frequency of a real plane, from low to high.

    Args:
        height: Height of the plane.
        width: Width of the plane.
        number: Number of bands M.

    Returns:
        Numbers of bands, (height, width // 2 + 1), uint8, as ``torch.fft.rfft2`` orders frequencies.

    Raises:
        ValueError: The plane has too few frequencies, so that a band would be empty.

    Example:
        >>> frequency_bands(4, 4, 3)
        tensor([[0, 0, 1],
                [0, 1, 2],
                [1, 2, 2],
                [0, 1, 2]], dtype=torch.uint8)
    """
    rows, columns = torch.fft.fftfreq(height, device='cpu'), torch.fft.rfftfreq(width, device='cpu')
    magnitude = (rows.square()[:, None] + columns.square()).round(decimals=9)  # equal ones stay in one band
    levels, place = magnitude.unique(return_inverse=True)
    counts = torch.zeros(len(levels), device='cpu').index_add_(
        0, place.flatten(), torch.ones(place.numel(), device='cpu')
    )
    middle = counts.cumsum(0) - counts / 2
    bands = (middle / counts.sum() * number).long().clamp(max=number - 1)[place].to(torch.uint8)
    if len(bands.unique()) < number:
        raise ValueError(
            f'num_experts={number} bands of frequencies need a larger kernel: some would be empty in a plane of '
            f'{height} x {width}'
        )
    return bands


@MODELS.register_module()
class FDConv(DynamicConv):
    """Dynamic convolution with bands of frequencies of one kernel as experts, for use in place of a ``Conv2d``.

    State dict: ``weight`` (1, P), the kernel; otherwise as :class:`DynamicConv`. Bands are computed in every call; a
    folded layer, also an exported one, is a :class:`DynamicConv` with constant experts.

    Args:
        in_channels: As in :class:`DynamicConv`, like the next seven.
        out_channels: Channels of the output.
        kernel_size: Kernel size.
        stride: Stride.
        padding: Zeros added on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Groups of channels.
        bias: Must be off: experts are parts of one kernel.
        num_experts: Bands M.
        router: As in :class:`DynamicConv`, without ``top_k``: a kernel without some of its bands is another kernel.

    Raises:
        ValueError: ``bias`` or ``top_k`` is set, a band would be empty, or as in :class:`DynamicConv`.

    Example:
        >>> layer = FDConv(64, 128, 3, stride=2, padding=1, num_experts=4)
        >>> layer.weight.shape, layer.experts.shape
        (torch.Size([1, 73728]), torch.Size([4, 128, 64, 3, 3]))
    """

    bands: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = False,
        num_experts: int = 4,
        router: RouterConfig = 'sigmoid',
    ) -> None:
        geometry = stride, padding, dilation, groups
        super().__init__(in_channels, out_channels, kernel_size, *geometry, bias, num_experts, router)
        if bias:
            raise ValueError('bias=True: the experts of FDConv are bands of one kernel, and have no biases')
        if self.router is not None and self.router.top_k is not None:
            raise ValueError('top_k: the bands of FDConv sum to its kernel, so none can be left out')
        width, height_k, width_k = self.weight_shape[1:]
        bands = frequency_bands(out_channels * height_k, width * width_k, num_experts)
        self.register_buffer('bands', bands.to(self.weight.device), persistent=False)
        self.weight = nn.Parameter(self.weight[:1].detach().clone())

    def reset_parameters(self) -> None:
        """Initialise the kernel as ``nn.Conv2d`` does."""
        for kernel in self.weight.view(-1, *self.weight_shape):
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))

    @property
    def experts(self) -> Tensor:
        """Bands of the kernel, (M, O, I/g, k, k), scaled so that equal shares of a new router give the kernel."""
        out_channels, width, height_k, width_k = self.weight_shape
        kind = self.weight.dtype if self.weight.dtype == torch.float64 else torch.float32
        size = out_channels * height_k, width * width_k
        plane = self.weight.view(self.weight_shape).transpose(1, 2).reshape(size).to(kind)
        numbers = torch.arange(self.num_experts, device=self.bands.device)
        masks = (self.bands == numbers[:, None, None]).to(kind) / self.share  # (M, O * k, I/g * k // 2 + 1)
        planes = torch.fft.irfft2(torch.fft.rfft2(plane) * masks, s=size)  # (M, O * k, I/g * k)
        return planes.view(-1, out_channels, height_k, width, width_k).transpose(2, 3).to(self.weight.dtype)

    @property
    def share(self) -> float:
        """The weight of every band in a router that prefers none."""
        return 1 / self.num_experts if self.router is not None and self.router.activation == 'softmax' else 0.5

    @torch.no_grad()
    def with_constant_experts(self) -> DynamicConv:
        """A dynamic convolution with these experts and this router."""
        geometry = self.stride, self.padding, self.dilation, self.groups
        layer = DynamicConv(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            *geometry,
            num_experts=self.num_experts,
            router=None,
        )
        layer.weight = nn.Parameter(self.experts.flatten(1).clone(), requires_grad=self.weight.requires_grad)
        layer.router, layer.shared_bias = self.router, self.shared_bias
        return layer.train(self.training)
