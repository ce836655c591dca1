"""Pictures of a run: predictions next to ground truth, and losses and average precision over the epochs."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS

from mmdyn.checkpoints import check_checkpoint, refuse_other_architecture
from mmdyn.datasets.pixels import read_pixels
from mmdyn.errors import UserError
from mmdyn.files import write_image
from mmdyn.inference.onnx_detector import viewable
from mmdyn.logs import METRICS, log_records, metric_of
from mmdyn.models.build import input_channels

matplotlib.use('Agg')
from matplotlib import pyplot as plt


def figure_image(figure) -> np.ndarray:
    """Render a Matplotlib figure as a BGR uint8 array, and close it."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., 2::-1].copy()
    plt.close(figure)
    return image


@torch.no_grad()
def prediction_grid(
    cfg: Config, checkpoint: str, indices: list[int], columns: int = 2, score: float = 0.3, device: str = 'cpu'
) -> np.ndarray:
    """Draw ground truth (left) and predictions (right) of some images of the test set.

    Args:
        cfg: Config of the run.
        checkpoint: Checkpoint file.
        indices: Indices of the images in the test set.
        columns: Number of pairs in a row.
        score: Score threshold of the predictions that are drawn.
        device: Device of the model.

    Returns:
        The grid as a BGR uint8 array; all images must have the same size.
    """
    content = check_checkpoint(checkpoint)
    model = init_detector(cfg, checkpoint, palette='random', device=device)
    if content is not None:
        refuse_other_architecture(model, content, checkpoint)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    visualizer = VISUALIZERS.build(dict(cfg.visualizer, name='prediction_grid', vis_backends=None))
    visualizer.dataset_meta = model.dataset_meta
    tiles = []
    for index in indices:
        data = dataset[index]
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        sample = model.test_step(batch)[0].cpu()
        image = viewable(read_pixels(sample.img_path, input_channels(model)))[..., ::-1]
        visualizer.add_datasample('grid', image, sample, draw_gt=True, pred_score_thr=score)
        tiles.append(visualizer.get_image()[..., ::-1])
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


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
