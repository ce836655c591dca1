"""Plots of a comparison, as SVG text for one page."""

import io
import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

import matplotlib
import numpy as np

from .comparison import Arm, Comparison, final_by_seed

matplotlib.use('Agg')
from matplotlib import pyplot as plt

# Palette of Okabe and Ito for all types of colour vision (https://jfly.uni-koeln.de/color/); black is the control.
COLOURS = ('#000000', '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c564b', '#7f7f7f', '#bcbd22')
STYLE: Any = {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'svg.fonttype': 'none'}
# These settings make the SVG output deterministic.
STYLE |= {'svg.hashsalt': 'mmdyn'}


def colour(index: int) -> str:
    """Colour of an arm by its index; only the control is black."""
    return COLOURS[1 + (index - 1) % (len(COLOURS) - 1)] if index else COLOURS[0]


def line(index: int) -> str:
    """Line style of an arm by its index; it changes with every round of colours."""
    return ('-', '--', ':', '-.')[max(0, index - 1) // (len(COLOURS) - 1) % 4]


def label(arm: Arm, names: Sequence[str]) -> str:
    """Name of an arm without the prefix and suffix that all names share.

    Args:
        arm: The arm.
        names: Names of all arms.
    """
    words = [name.split('_') for name in names]
    first = next((i for i, column in enumerate(zip(*words)) if len(set(column)) > 1), 0)
    last = next((i for i, column in enumerate(zip(*(w[::-1] for w in words))) if len(set(column)) > 1), 0)
    own = arm.name.split('_')
    return '_'.join(own[first : len(own) - last]) or arm.name


def labels(comparison: Comparison) -> list[str]:
    """Short names of all arms, in order."""
    names = [arm.name for arm in comparison.arms]
    return names if len(names) == 1 else [label(arm, names) for arm in comparison.arms]


def _svg(figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format='svg', bbox_inches='tight', metadata={'Date': None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index('<svg') :]


def curves(comparison: Comparison) -> str:
    """AP over the epochs: the mean of the seeds, and the band between the lowest and the highest."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 4.2))
        for i, (arm, name) in enumerate(zip(comparison.arms, labels(comparison), strict=True)):
            shared = [run.ap for run in arm.done]
            epochs = sorted(set.intersection(*(set(ap) for ap in shared))) if shared else []
            if not epochs:
                continue
            values = np.array([[ap[epoch] for epoch in epochs] for ap in shared])  # (seeds, epochs)
            axis.plot(
                epochs, values.mean(0), color=colour(i), linestyle=line(i), label=name, marker='.', zorder=3 if i else 4
            )
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour(i), alpha=0.12, linewidth=0)
        axis.set(xlabel='epoch', ylabel=f'{comparison.score}, validation set')
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def forest(comparison: Comparison) -> str:
    """Paired differences to the control with their intervals, and every pair of seeds as a dot."""
    reference = final_by_seed(comparison.control.runs)
    others = list(enumerate(zip(comparison.arms, labels(comparison), strict=True)))[1:]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 0.7 + 0.42 * len(others)))
        axis.axvline(0, color='#000000', linewidth=1)
        for i, (arm, _) in others:
            pairs = [ap - reference[seed] for seed, ap in final_by_seed(arm.runs).items() if seed in reference]
            axis.plot(pairs, [i + 0.22] * len(pairs), '.', color=colour(i), alpha=0.6)
            difference = arm.difference
            if difference is None or math.isnan(difference.mean):
                continue
            axis.plot([difference.mean], [i], 'o', color=colour(i))
            if not math.isnan(difference.low):
                axis.plot([difference.low, difference.high], [i, i], color=colour(i), linewidth=2)
        axis.set_yticks([i for i, _ in others], [name for _, (_, name) in others])
        axis.set_ylim(len(others) + 0.6, 0.4)
        axis.set_xlabel(
            f'difference in {comparison.score} to {labels(comparison)[0]}: mean, 95 % interval; dots are seeds'
        )
        axis.grid(axis='x', alpha=0.25)
        return _svg(figure)


def trade_offs(comparison: Comparison) -> str:
    """AP over parameters and over latency, with the standard deviation over seeds."""
    quantities = [('parameters, millions', [arm.cost.parameters / 1e6 for arm in comparison.arms])]
    if not any(math.isnan(arm.speed.latency) for arm in comparison.arms):
        quantities.append(('latency of one image, ms', [arm.speed.latency * 1e3 for arm in comparison.arms]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(quantities), figsize=(4.4 * len(quantities), 3.6), sharey=True, squeeze=False
        )
        for axis, (name, values) in zip(axes[0], quantities, strict=True):
            for i, (arm, value) in enumerate(zip(comparison.arms, values, strict=True)):
                if arm.final:
                    deviation = np.std(arm.final, ddof=1) if len(arm.final) > 1 else 0
                    axis.errorbar(
                        value,
                        mean(arm.final),
                        deviation,
                        fmt='o',
                        color=colour(i),
                        label=labels(comparison)[i],
                        capsize=2,
                    )
            axis.set_xlabel(name)
            axis.grid(alpha=0.25)
        axes[0][0].set_ylabel(f'{comparison.score}, mean and deviation')
        handles, names = axes[0][0].get_legend_handles_labels()
        axes[0][-1].legend(handles, names, frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def routing(comparison: Comparison) -> str | None:
    """Routing figures of every layer at the last validation, mean over seeds; None if no arm is dynamic."""
    rows, figures = [], ('entropy', 'balance', 'sample_spread', 'class_spread')
    for arm, name in zip(comparison.arms, labels(comparison), strict=True):
        logged = [run.routing for run in arm.done if run.routing]
        for layer in logged[0] if logged else ():
            values = [mean(float(r[layer].get(f, math.nan)) for r in logged if layer in r) for f in figures]
            rows.append((f'{name}: {layer.removesuffix(".conv")}', values))
    if not rows:
        return None
    grid = np.array([values for _, values in rows])
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.6, 0.6 + 0.2 * len(rows)))
        # each quantity has its own scale
        scaled = grid / np.where(np.nanmax(grid, axis=0) > 0, np.nanmax(grid, axis=0), 1)
        axis.imshow(scaled, aspect='auto', cmap='Blues', vmin=0, vmax=2)
        for y, x in np.ndindex(*grid.shape):
            axis.text(x, y, f'{grid[y, x]:.3f}', ha='center', va='center', fontsize=7)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
        axis.set_xticks(range(len(figures)), [f.replace('_', ' ') for f in figures])
        axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        return _svg(figure)
