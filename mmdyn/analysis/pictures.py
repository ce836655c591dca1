"""Pictures: Matplotlib's figures, objects on small images, and the curves of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from faster_coco_eval.core import mask as coco_mask

from mmdyn.datasets.outlines import run_lengths
from mmdyn.errors import UserError
from mmdyn.files import write_image
from mmdyn.inference.onnx_detector import Detections, colour_of, draw, draw_masks, viewable
from mmdyn.logs import METRICS, figure_name, log_records, metric_of

matplotlib.use('Agg')
from matplotlib import pyplot as plt


def figure_image(figure) -> np.ndarray:
    """Render a Matplotlib figure as a BGR uint8 array, and close it."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., 2::-1].copy()
    plt.close(figure)
    return image


class CocoMasks(Sequence[np.ndarray]):
    """Masks of objects as COCO's evaluator sees them. Each is made when it is asked for, as together they are large.

    Args:
        segmentations: COCO's ``segmentation`` of every object; None for one without.
        size: Height and width of the image.
        where: The image, for messages.

    Example:
        >>> CocoMasks([None, [[0, 0, 4, 0, 4, 4, 0, 4]]], (8, 8))[1].sum()
        np.int64(16)
    """

    def __init__(self, segmentations: Sequence[Any], size: tuple[int, int], where: str = '') -> None:
        self.segmentations, self.size, self.where = segmentations, size, where

    def __len__(self) -> int:
        return len(self.segmentations)

    def __getitem__(self, index: Any) -> Any:
        segmentation = self.segmentations[index]
        if not segmentation:
            return np.zeros(self.size, bool)
        return coco_mask.decode(run_lengths(segmentation, *self.size, self.where)) > 0


def draw_small(
    image: np.ndarray,
    objects: Detections,
    texts: Sequence[str],
    height: int,
    most_width: int | None = None,
    skeleton: Sequence[Sequence[int]] = (),
    colours: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """An image of another size with what is in it, and texts that can be read at that size.

    Args:
        image: (H, W, channels).
        objects: In pixels of the image.
        texts: Of every object.
        height: Of the result, in pixels.
        most_width: The result is less high where it would be wider.
        skeleton: Pairs of keypoints that are joined, counted from 1.
        colours: Of every object, BGR; by default those of the labels.

    Returns:
        A BGR uint8 array.

    Example:
        >>> one = Detections(np.array([[40, 40, 90, 90]]), np.ones(1), np.zeros(1, int))
        >>> draw_small(np.zeros((200, 400, 3), np.uint8), one, ['cat'], 100, most_width=100).shape
        (50, 100, 3)
    """
    scale = min(height / image.shape[0], (most_width or np.inf) / image.shape[1])
    picture = viewable(image)
    colours = [colour_of(label) for label in objects.labels] if colours is None else colours
    if objects.masks is not None:
        draw_masks(picture, objects.masks, colours)
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    points = None if objects.keypoints is None else objects.keypoints * scale
    turned = None if objects.oriented_boxes is None else objects.oriented_boxes * [*[scale] * 4, 1]
    small = objects._replace(boxes=objects.boxes * scale, keypoints=points, masks=None, oriented_boxes=turned)
    return draw(picture, small, texts, skeleton, colours)


def draw_curves(work_dir: str | Path, path: str | Path) -> None:
    """Plot losses and average precision, or accuracy, of a run over its epochs.

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
    metrics = dict.fromkeys(
        each for r in val for key in METRICS if key in r for each in (key, METRICS[key]) if each in r
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), dpi=120, constrained_layout=True)
    steps_per_epoch = max(r['step'] for r in train) / max(r['epoch'] for r in train)
    for key in sorted(k for k in train[0] if k.startswith('loss')):
        left.plot([r['step'] / steps_per_epoch for r in train], [r[key] for r in train], label=key)
    left.set(xlabel='epoch', ylabel='loss', yscale='log')
    for key in metrics:
        points = [(r['step'], r[key]) for r in val if key in r]
        right.plot(*zip(*points, strict=True), marker='o', label=key.rpartition('/')[2])
    right.set(xlabel='epoch', ylabel=f'{figure_name(metrics)}, validation set', ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    write_image(path, figure_image(figure))
