"""Matplotlib's figures as pictures, and the curves of a run."""

from pathlib import Path

import matplotlib
import numpy as np

from mmdyn.errors import UserError
from mmdyn.files import write_image
from mmdyn.logs import METRICS, log_records, metric_of

matplotlib.use('Agg')
from matplotlib import pyplot as plt


def figure_image(figure) -> np.ndarray:
    """Render a Matplotlib figure as a BGR uint8 array, and close it."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., 2::-1].copy()
    plt.close(figure)
    return image


def draw_curves(work_dir: str | Path, path: str | Path) -> None:
    """Plot losses and average precision of a run over its epochs.

    Args:
        work_dir: Folder of the run.
        path: Picture to write.

    Raises:
        UserError: The folder has no training log.
    """
    records = list(log_records(work_dir, last_only=True))
    if not records:
        raise UserError(f'{Path(work_dir).absolute()} has no training log: give the work dir of a run')
    train = [r for r in records if 'loss' in r]
    val = [r for r in records if metric_of(r)]
    metrics = dict.fromkeys(f'{key}{at}' for r in val for key in METRICS if key in r for at in ('', '_50'))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), dpi=120, constrained_layout=True)
    steps_per_epoch = max(r['step'] for r in train) / max(r['epoch'] for r in train)
    for key in sorted(k for k in train[0] if k.startswith('loss')):
        left.plot([r['step'] / steps_per_epoch for r in train], [r[key] for r in train], label=key)
    left.set(xlabel='epoch', ylabel='loss (sum over a batch)', yscale='log')
    for key in metrics:
        right.plot([r['step'] for r in val], [r[key] for r in val], marker='o', label=key.removeprefix('coco/'))
    right.set(xlabel='epoch', ylabel='average precision, validation set', ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    write_image(path, figure_image(figure))
