"""Figures of a report, as BGR arrays: curves over scores and over epochs, the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from mmdyn.analysis.pictures import figure_image
from mmdyn.logs import figure_name

from .matching import Curves

matplotlib.use('Agg')
from matplotlib import pyplot as plt

NAMED_CLASSES = 12  # in a legend, and with numbers in the confusion matrix
LABELLED_CLASSES = 100  # beside the confusion matrix
DPI = 110


def score_curves(curves: Curves, names: Sequence[str]) -> np.ndarray:
    """Precision over recall, and precision, recall and F1 over scores: each class thin, their mean thick.

    Args:
        curves: The curves.
        names: Names of the classes.
    """
    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2), dpi=DPI)
    figure.subplots_adjust(left=0.035, right=0.99, bottom=0.12, top=0.98, wspace=0.18)
    panels = [
        (curves.recall, curves.precision, 'recall', 'precision'),
        (curves.scores, curves.f1, 'score', 'F1'),
        (curves.scores, curves.precision, 'score', 'precision'),
        (curves.scores, curves.recall, 'score', 'recall'),
    ]
    present = np.flatnonzero(~np.isnan(curves.precision).any(1)).tolist()
    for axis, (across, up, horizontal, vertical) in zip(axes, panels, strict=True):
        for k in present:
            label = names[k] if len(present) <= NAMED_CLASSES else None
            axis.plot(across[k] if across.ndim == 2 else across, up[k], linewidth=0.9, alpha=0.7, label=label)
        if len(present) > 1:
            x = across[present].mean(0) if across.ndim == 2 else across
            axis.plot(x, up[present].mean(0), color='black', linewidth=2, label='mean')
        axis.set(xlabel=horizontal, ylabel=vertical, xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    for axis in axes[1:]:
        axis.axvline(curves.best_score, color='0.4', linewidth=0.8, linestyle='--')
    if axes[0].get_legend_handles_labels()[1]:
        axes[0].legend(fontsize=7)
    return figure_image(figure)


def confusion_matrix(counts: np.ndarray, labels: Sequence[str], rows: str = 'object') -> np.ndarray:
    """The matrix in counts, and as shares of each class.

    Args:
        counts: (K, K), background last where there is any.
        labels: Names of the K classes.
        rows: What a row is.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(4.2 + 0.22 * len(labels), 12)
    figure, axes = plt.subplots(1, 2, figsize=(2 * side + 2, side), dpi=DPI)
    longest = min(0.03 + 0.006 * max(map(len, labels)), 0.2)  # of the names beside and below, as a share of the width
    figure.subplots_adjust(left=longest, right=0.99, bottom=2.2 * longest, top=0.92, wspace=1.9 * longest)
    for axis, values, title in zip(axes, (counts, shares), ('counts', f'share of the {rows}s of a class'), strict=True):
        axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
        axis.set(title=title, xlabel='predicted', ylabel=rows)
        if len(labels) > LABELLED_CLASSES:
            continue
        size = 8 if len(labels) <= NAMED_CLASSES + 1 else max(3, 90 // len(labels))
        axis.set_xticks(range(len(labels)), labels, rotation=60, ha='right', fontsize=size)
        axis.set_yticks(range(len(labels)), labels, fontsize=size)
        if len(labels) <= NAMED_CLASSES + 1:
            for row, column in zip(*np.nonzero(values), strict=True):
                text = f'{values[row, column]:.2f}' if values is shares else str(values[row, column])
                dark = shares[row, column] > 0.6
                axis.text(column, row, text, ha='center', va='center', fontsize=7, color='white' if dark else 'black')
    return figure_image(figure)


def epoch_curves(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Losses, and average precision or accuracy, over epochs.

    Args:
        rows: One row an epoch.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), dpi=DPI)
    figure.subplots_adjust(left=0.08, right=0.99, bottom=0.13, top=0.97, wspace=0.16)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in (k for k in keys if k.startswith('loss')):
        points = [(row['epoch'], row[key]) for row in rows if key in row]
        left.plot(*zip(*points, strict=True), marker='o', markersize=2, label=key)
    left.set(xlabel='epoch', ylabel='loss', yscale='log')
    metrics = [k for k in keys if k.endswith(('mAP', 'mAP_50', '_AP', '_AP50', '/top1', '/top5'))]
    for key in metrics:
        points = [(row['epoch'], row[key]) for row in rows if key in row]
        right.plot(*zip(*points, strict=True), marker='o', markersize=3, label=key.rpartition('/')[2])
    right.set(xlabel='epoch', ylabel=figure_name(metrics), ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    return figure_image(figure)
