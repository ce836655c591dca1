"""Draw dynamic_conv.png: two images through one dynamic convolution with hand-made experts and a hand-made router.

Run from the root of the repository: ``python docs/images/dynamic_conv.py``. The photographs are those of scikit-learn
(``sklearn.datasets.load_sample_images``, CC BY 2.0).
"""

from pathlib import Path

import matplotlib as mpl

mpl.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch
from PIL import Image
from sklearn.datasets import load_sample_images

import mmdyn

BLUE, ORANGE, GREEN, GREY = '#0072b2', '#d55e00', '#009e73', '#555555'
SIZE = 300
ROUTER = torch.tensor([[-9.0, 1.0, 9.0], [8.0, 2.0, -12.0], [-6.0, 4.0, 3.0], [3.0, 7.0, -9.0]])  # (M, 3)


def images() -> list[np.ndarray]:
    """Two square crops, RGB."""
    china, flower = load_sample_images().images
    crops = (china[60:420, 120:480], flower[40:400, 150:510])
    return [np.array(Image.fromarray(crop).resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for crop in crops]


def experts() -> torch.Tensor:
    """Four oriented edge filters of 7 x 7, (M, 1, 3, 7, 7)."""
    y, x = torch.meshgrid(torch.arange(-3.0, 4.0), torch.arange(-3.0, 4.0), indexing='ij')
    envelope = torch.exp(-(x**2 + y**2) / 5)
    kernels = []
    for angle in torch.tensor([0.0, 0.25, 0.5, 0.75]) * torch.pi:
        kernel = envelope * torch.sin((x * torch.cos(angle) + y * torch.sin(angle)) * 1.2)
        kernels.append(kernel / kernel.abs().sum())
    return torch.stack(kernels)[:, None, None].expand(-1, 1, 3, -1, -1).contiguous()


def main() -> None:
    """Compute with the function of the package, and draw."""
    pictures, kernels = images(), experts()
    x = torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pictures]).float() / 255
    pooled = x.mean((2, 3))
    weights = torch.sigmoid((pooled - pooled.mean(0)) @ ROUTER.T * 1.5)  # (B, M)
    outputs = mmdyn.dynamic_conv2d(x, kernels, weights, padding=3)[:, 0].numpy()
    mixed = torch.einsum('bm,mhw->bhw', weights, kernels[:, 0, 0]).numpy()

    figure = plt.figure(figsize=(11.2, 5.0), dpi=100, facecolor='white')

    def axes(left: float, bottom: float, width: float, height: float, edge: str = GREY) -> plt.Axes:
        ax = figure.add_axes((left, bottom, width, height))
        ax.set_xticks([])
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set(edgecolor=edge, linewidth=1.4)
        return ax

    def arrow(start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
        style = f'arc3,rad={bend}'
        figure.add_artist(
            FancyArrowPatch(
                start, end, arrowstyle='-|>', mutation_scale=13, color=GREY, linewidth=1.3, connectionstyle=style
            )
        )

    def text(x: float, y: float, words: str, **style: object) -> None:
        figure.text(x, y, words, ha='center', va='center', **{'fontsize': 11, 'color': '#1b1b1b', **style})

    limit = float(kernels.abs().max())
    for m in range(4):
        ax = axes(0.395 + 0.07 * m, 0.775, 0.0625, 0.14, ORANGE)
        ax.imshow(kernels[m, 0, 0], cmap='RdBu', vmin=-limit, vmax=limit)
        ax.set_title(f'$W_{m + 1}$', fontsize=11, pad=3)
    text(0.335, 0.845, 'experts', color=ORANGE, fontsize=12, weight='bold')
    text(0.745, 0.845, 'the same for\nall images', color=GREY, fontsize=10)
    titles = ((0.09, 'image'), (0.335, 'routing weights'), (0.6, 'mixed kernel'), (0.88, 'its convolution'))
    for x_, title in titles:
        text(x_, 0.70, title, weight='bold')
    for row, (picture, weight, kernel, output) in enumerate(zip(pictures, weights, mixed, outputs)):
        low = 0.37 - 0.345 * row
        middle = low + 0.15
        axes(0.02, low, 0.14, 0.3, BLUE).imshow(picture)
        arrow((0.168, middle), (0.243, middle))
        text(0.204, middle + 0.05, 'router', color=BLUE, fontsize=10)
        bars = axes(0.262, low + 0.02, 0.15, 0.26, BLUE)
        bars.barh(range(4), weight, color=ORANGE, height=0.62)
        bars.set(xlim=(0, 1.25), ylim=(3.6, -0.6), yticks=range(4))
        bars.set_yticklabels([f'$r_{m + 1}$' for m in range(4)], fontsize=9)
        bars.tick_params(length=0, pad=2)
        for m, value in enumerate(weight):
            bars.text(float(value) + 0.04, m, f'{value:.2f}', va='center', fontsize=9)
        arrow((0.42, middle), (0.528, middle))
        text(0.473, middle + 0.06, r'$\Sigma\; r_m W_m$', color=GREEN, fontsize=12)
        peak = float(np.abs(kernel).max())
        axes(0.545, low + 0.03, 0.11, 0.24, GREEN).imshow(kernel, cmap='RdBu', vmin=-peak, vmax=peak)
        arrow((0.665, middle), (0.795, middle))
        text(0.73, middle + 0.05, 'convolve', color=GREY, fontsize=10)
        axes(0.81, low, 0.14, 0.3, BLUE).imshow(np.abs(output), cmap='gray', vmax=np.quantile(np.abs(output), 0.99))
    target = Path(__file__).with_suffix('.png')
    figure.savefig(target)
    plt.close(figure)
    Image.open(target).convert('RGB').quantize(192, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target, f'{target.stat().st_size / 1024:.0f} KB')


if __name__ == '__main__':
    main()
