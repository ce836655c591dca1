"""Comparison of an exported file with PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmdet.models import BaseDetector
from torch import Tensor

from mmdyn.datasets.photograph import photograph
from mmdyn.errors import UserError
from mmdyn.inference.runtimes import open_exported
from mmdyn.models.build import input_channels

from .graph import extras_of, of_priors
from .options import ExportOptions

FULL, HALF = (0.01, 1e-4), (4.0, 0.05)  # maximum differences to PyTorch: pixels, scores and shares


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


class Differences(NamedTuple):
    """Largest differences of an exported file to PyTorch; NaN if NMS keeps no box."""

    boxes: float = float('nan')  # in pixels
    scores: float = float('nan')
    extras: float = 0.0  # of keypoints, in pixels; of what masks are made of, as shares of their largest number


def check_agreement(
    path: Path, images: Tensor, expected: Mapping[str, Tensor], kept: Tensor | None, options: ExportOptions
) -> Differences:
    """Compare an exported file with PyTorch.

    Args:
        path: The exported file.
        images: Its input, (B, channels, H, W).
        expected: PyTorch's outputs for them by name, without NMS.
        kept: Labels of what PyTorch's NMS keeps, (B, K), below 0 where nothing is; None without NMS.
        options: Options of the export.

    Raises:
        UserError: The differences are too large, or NMS keeps a different number of boxes.
    """
    session = open_exported(path)
    arrays = (torch.from_numpy(np.asarray(x)) for x in session.run(images.numpy()))
    found = dict(zip(session.outputs, arrays, strict=True))
    boxes, scores = expected['boxes'], expected['scores']
    if kept is not None:
        seen = found['labels'] >= 0
        counts, wanted = seen.sum(1), (kept >= 0).sum(1)
        if not options.int8 and ((counts - wanted).abs() > 1 + 0.05 * options.half * wanted).any():
            raise UserError(f'{options.format} keeps {counts.tolist()} boxes after NMS, PyTorch {wanted.tolist()}')
        if not counts.any():
            return Differences()
        prior = torch.cdist(found['dets'][..., :4].double(), boxes.double()).argmin(2)  # (B, K), the nearest
        best = of_priors(scores, prior).gather(2, found['labels'].clamp(min=0)[..., None])[..., 0]
        off = float((found['dets'][..., :4] - of_priors(boxes, prior)).abs()[seen].max())
        off_score = float((found['dets'][..., 4] - best).abs()[seen].max())
        others = extras_of(expected, prior, 'masks' in found)
    else:
        seen = scores.amax(2) > 0.001  # boxes with a relevant score
        off = float((found['boxes'] - boxes).abs().amax(2)[seen].max()) if seen.any() else 0.0
        off_score = float((found['scores'] - scores).abs().max())
        others = extras_of(expected)
    off_extra = max((_difference(name, found[name], value, seen) for name, value in others.items()), default=0.0)
    pixels, share = HALF if options.half else FULL
    limit = pixels if 'keypoints' in others else share
    if not options.int8 and not (off <= pixels and off_score <= share and off_extra <= limit):
        added = f', {" and ".join(others)} by {off_extra:.3g}' if others else ''
        raise UserError(
            f'{options.format} differs from PyTorch: boxes by {off:.3g} pixels, scores by {off_score:.3g}{added}. '
            'Nothing was written; try another --form or --opset'
        )
    return Differences(off, off_score, off_extra)


def _difference(name: str, found: Tensor, expected: Tensor, seen: Tensor) -> float:
    """How far an output of a task is off, where a row of it has an object; see :class:`Differences`."""
    if name != 'prototypes':
        found, expected = found[seen], expected[seen]
    if not expected.numel():
        return 0.0
    off = (found - expected).abs().max()
    return float(off if name == 'keypoints' else off / expected.abs().max())
