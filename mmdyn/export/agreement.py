"""Comparison of an exported file with PyTorch."""

from pathlib import Path

import numpy as np
import torch
from mmdet.models import BaseDetector
from torch import Tensor

from mmdyn.datasets.photograph import photograph
from mmdyn.errors import UserError
from mmdyn.inference.runtimes import open_exported
from mmdyn.models.build import input_channels

from .options import ExportOptions

FULL, HALF = (0.01, 1e-4), (4.0, 0.05)  # maximum differences to PyTorch: pixels, scores


def examples(model: BaseDetector, size: tuple[int, int], count: int) -> Tensor:
    """Several views of a photograph, normalised for a detector.

    Args:
        model: The detector.
        size: Height and width.
        count: Number of views.
    """
    image = photograph(size, input_channels(model))
    views = [image, image.flip(3), image.roll(size[0] // 3, 2), image.flip(2)]
    batch = torch.cat([views[i % 4] for i in range(count)])
    return (batch - model.data_preprocessor.mean) / model.data_preprocessor.std


def check_agreement(
    path: Path, images: Tensor, expected: tuple[Tensor, Tensor], kept: Tensor | None, options: ExportOptions
) -> tuple[float, float]:
    """Largest differences of boxes and scores to PyTorch.

    Args:
        path: The exported file.
        images: Its input, (B, channels, H, W).
        expected: PyTorch's boxes and scores for them, without NMS.
        kept: Which of the K detections PyTorch's NMS keeps, (B, K); None without NMS.
        options: Options of the export.

    Returns:
        Differences of boxes in pixels and of scores; NaN if NMS keeps no box.

    Raises:
        UserError: They are too large, or NMS keeps a different number of boxes.
    """
    boxes, scores = expected
    first, second = (torch.from_numpy(np.asarray(x)) for x in open_exported(path).run(images.numpy()))
    if kept is not None:
        counts, wanted = (second >= 0).sum(1), kept.sum(1)
        if not options.int8 and ((counts - wanted).abs() > 1 + 0.05 * options.half * wanted).any():
            raise UserError(f'{options.format} keeps {counts.tolist()} boxes after NMS, PyTorch {wanted.tolist()}')
        if not counts.any():
            return float('nan'), float('nan')
        corners, best = _nearest(first, second, boxes, scores)
        off = float((first[..., :4] - corners).abs()[second >= 0].max())
        off_score = float((first[..., 4] - best).abs()[second >= 0].max())
    else:
        seen = scores.amax(2) > 0.001  # boxes with a relevant score
        off = float((first - boxes).abs().amax(2)[seen].max()) if seen.any() else 0.0
        off_score = float((second - scores).abs().max())
    pixels, share = HALF if options.half else FULL
    if not options.int8 and not (off <= pixels and off_score <= share):
        raise UserError(
            f'{options.format} differs from PyTorch: boxes by {off:.3g} pixels, scores by '
            f'{off_score:.3g}. Nothing was written; try another --form or --opset'
        )
    return off, off_score


def _nearest(exported: Tensor, labels: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """For every detection, the nearest of PyTorch's boxes, and its score of that class."""
    nearest = torch.cdist(exported[..., :4].double(), boxes.double()).argmin(2)  # (B, K)
    corners = boxes.gather(1, nearest[..., None].expand(-1, -1, 4))
    class_scores = scores.gather(1, nearest[..., None].expand(-1, -1, scores.shape[2]))
    return corners, class_scores.gather(2, labels.clamp(min=0)[..., None])[..., 0]
