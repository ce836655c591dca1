"""Routing of a trained detector over a data set: by layer, by class, and the images that are routed most differently.

Shapes: N images, M experts, K classes.
"""

import math
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import matplotlib
import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor

from mmdyn.analysis.pictures import figure_image
from mmdyn.errors import UserError
from mmdyn.files import write_image, write_json, write_text
from mmdyn.layers import dynamic_layers, record_routing
from mmdyn.running.dataset_images import dataset_images
from mmdyn.running.loading import Loaded, class_names, load_checkpoint_model
from mmdyn.tasks import head_of

from .hook import present_classes
from .statistics import RoutingStatistics, class_means, routing_statistics

matplotlib.use('Agg')
from matplotlib import pyplot as plt

COLUMNS = 3  # of layers in a figure
THUMBNAIL = 160  # pixels
FIGURES = ('entropy', 'balance', 'sample_spread', 'class_spread', 'saturated', 'dead', 'distance')


class RoutingAnalysis(NamedTuple):
    """Routing weights and figures of every dynamic convolution of a detector over some images."""

    layers: dict[str, RoutingStatistics]
    routing: dict[str, Tensor]  # weights by layer, (N, M)
    present: Tensor  # classes in every image, (N, K), bool
    classes: list[str]
    paths: list[str]  # of the images

    def table(self) -> str:
        """The layers as a Markdown table."""
        lines = [f'| layer | mean weights | {" | ".join(f.replace("_", " ") for f in FIGURES)} | |']
        lines.append('|---' * (len(FIGURES) + 3) + '|')
        for name, layer in self.layers.items():
            weights = ' '.join(f'{w:.2f}' for w in layer.weight)
            values = (f'{getattr(layer, f):.0f}' if f == 'dead' else f'{getattr(layer, f):.3f}' for f in FIGURES)
            lines.append(f'| {name} | {weights} | {" | ".join(values)} | {layer.collapsed or ""} |')
        return '\n'.join(lines)


@torch.no_grad()
def analyse_routing(
    cfg: Config, checkpoint: str | Path, split: Literal['train', 'val', 'test'] = 'val', number: int = 500
) -> RoutingAnalysis:
    """Run a detector over images of a data set and record the routing weights.

    Args:
        cfg: Config of the detector.
        checkpoint: Its checkpoint.
        split: Split of the data set.
        number: Number of images; all images if the set is smaller.

    Raises:
        UserError: As in :func:`~mmdyn.running.loading.load_checkpoint_model` and
            :func:`~mmdyn.analysis.dataset_images.dataset_images`; or the detector is static.
    """
    loaded = load_checkpoint_model(cfg, checkpoint)
    layers = dynamic_layers(loaded.model)
    if not layers:
        raise UserError(f'{checkpoint} has no dynamic convolution: set the checkpoint of a dynamic detector')
    samples: list[DetDataSample] = []
    weights: dict[str, list[Tensor]] = {name: [] for name in layers}
    for image, sample in dataset_images(cfg, loaded.model.data_preprocessor, split, number, 'routing'):
        with record_routing(loaded.model) as seen:
            loaded.model(image, [sample], mode='tensor')
        samples.append(sample)
        for name, calls in seen.items():
            if calls:  # a head may run a layer once for every level: one weight for the image
                weights[name].append(torch.cat(calls).mean(0))
    classes = class_names(loaded.classes, cfg, _class_count(loaded, samples))
    present = present_classes(samples, len(classes))
    routing = {name: torch.stack(rows) for name, rows in weights.items() if rows}  # (N, M)
    if not routing:
        raise UserError(f'{checkpoint} has one expert in every layer: there is no routing to show')
    statistics = {name: routing_statistics(r, layers[name].experts, present) for name, r in routing.items()}
    return RoutingAnalysis(statistics, routing, present, classes, [s.img_path for s in samples])


def _class_count(loaded: Loaded, samples: list[DetDataSample]) -> int:
    """Number of classes of the head, else of the checkpoint, else of the images."""
    count = getattr(head_of(loaded.model), 'num_classes', None) or len(loaded.classes or ())
    labels = (int(label) for s in samples for label in s.get('gt_instances', {}).get('labels', ()))
    return count or max(labels, default=-1) + 1


def _grid(count: int, width: float, height: float):
    """A figure with one axis per layer; unused axes are removed."""
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=110, squeeze=False, constrained_layout=True)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def draw_by_layer(analysis: RoutingAnalysis) -> np.ndarray:
    """Weights of every expert over the images, one panel per layer, as a BGR uint8 array."""
    figure, axes = _grid(len(analysis.routing), 3.4, 2.6)
    for axis, (name, weights) in zip(axes, analysis.routing.items(), strict=True):
        statistics = analysis.layers[name]
        axis.violinplot(weights.T.tolist(), positions=range(weights.shape[1]), showmedians=True, widths=0.8)
        axis.set(ylim=(0, 1.02), xticks=range(weights.shape[1]))
        axis.set_title(f'{name}\nentropy {statistics.entropy:.2f}, spread {statistics.sample_spread:.3f}', fontsize=8)
        axis.grid(axis='y', alpha=0.3)
    figure.supxlabel('expert', fontsize=9)
    figure.supylabel('routing weight, over images', fontsize=9)
    return figure_image(figure)


def draw_by_class(analysis: RoutingAnalysis) -> np.ndarray:
    """Mean weights of the images with a class minus the mean of all, one panel per layer, as a BGR uint8 array."""
    shown = [i for i in range(len(analysis.classes)) if analysis.present[:, i].any()]
    if not shown:
        figure = plt.figure(figsize=(4, 1.5), dpi=110)
        figure.text(0.5, 0.5, 'no image has a box, so there is nothing by class', ha='center', va='center')
        return figure_image(figure)
    figure, axes = _grid(len(analysis.routing), 3.4, 0.9 + 0.2 * max(len(shown), 4))
    apart = {
        name: class_means(weights, analysis.present)[shown] - weights.mean(0)
        for name, weights in analysis.routing.items()
    }
    limit = max(1e-3, *(float(d.abs().max()) for d in apart.values()))
    for axis, (name, difference) in zip(axes, apart.items(), strict=True):
        image = axis.imshow(difference.numpy(), aspect='auto', cmap='RdBu_r', vmin=-limit, vmax=limit)
        axis.set_yticks(range(len(shown)), [analysis.classes[i] for i in shown], fontsize=7)
        axis.set_xticks(range(difference.shape[1]))
        axis.set_title(f'{name}\nclass spread {analysis.layers[name].class_spread:.3f}', fontsize=8)
    figure.colorbar(image, ax=axes, label='weight minus the mean', shrink=0.8)
    figure.supxlabel('expert', fontsize=9)
    return figure_image(figure)


def most_different(weights: Tensor) -> tuple[int, int]:
    """The two images that a layer routes most differently.

    Args:
        weights: Routing weights, (N, M).
    """
    distances = torch.cdist(weights, weights)  # (N, N)
    first, second = divmod(int(distances.argmax()), len(weights))
    return min(first, second), max(first, second)


def draw_most_different(analysis: RoutingAnalysis) -> np.ndarray:
    """The two images that each layer routes most differently, with their weights, as a BGR uint8 array."""
    count = len(analysis.routing)
    figure, axes = plt.subplots(
        count, 3, figsize=(7.5, 1.9 * count), dpi=110, squeeze=False, constrained_layout=True, width_ratios=(1, 1, 1.6)
    )
    for row, (name, weights) in zip(axes, analysis.routing.items(), strict=True):
        pair = most_different(weights)
        for axis, index, colour in zip(row, pair, ('#0072b2', '#d55e00')):
            axis.imshow(_thumbnail(analysis.paths[index]))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(Path(analysis.paths[index]).name, fontsize=7, color=colour)
        row[0].set_ylabel(name, fontsize=7)
        experts = np.arange(weights.shape[1])
        for shift, index, colour in zip((-0.2, 0.2), pair, ('#0072b2', '#d55e00')):
            row[2].bar(experts + shift, weights[index].tolist(), 0.38, color=colour)
        row[2].set(ylim=(0, 1.02), xticks=experts)
        row[2].tick_params(labelsize=7)
    axes[-1][2].set_xlabel('expert', fontsize=8)
    return figure_image(figure)


def _thumbnail(path: str) -> np.ndarray:
    image = mmcv.imread(path, channel_order='rgb')
    scale = THUMBNAIL / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


PICTURES = {'by_layer.png': draw_by_layer, 'by_class.png': draw_by_class, 'most_different.png': draw_most_different}


def write_analysis(analysis: RoutingAnalysis, folder: str | Path) -> None:
    """Write pictures, the table as ``routing.md`` and the numbers as ``routing.json``.

    Args:
        analysis: The analysis.
        folder: Output folder.
    """
    folder = Path(folder)
    for name, draw in PICTURES.items():
        write_image(folder / name, draw(analysis))
    pictures = '\n\n'.join(f'![{name}]({name})' for name in PICTURES)
    text = f'# Routing of {len(analysis.paths)} images\n\n{analysis.table()}\n\n{pictures}\n'
    numbers = {name: layer.scalars() for name, layer in analysis.layers.items()}
    write_text(folder / 'routing.md', text)
    write_json(folder / 'routing.json', numbers, indent=1)
