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

    boxes: float = float('nan')  # of boxes and keypoints, in pixels
    scores: float = float('nan')  # of boxes and keypoints
    masks: float = 0.0  # of what masks are made of, or of their logits, as shares of the largest number


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
    limits = HALF if options.half else FULL
    if kept is not None:
        seen = found['labels'] >= 0
        counts, wanted = seen.sum(1), (kept >= 0).sum(1)
        if not options.int8 and ((counts - wanted).abs() > 1 + 0.05 * options.half * wanted).any():
            raise UserError(f'{options.format} keeps {counts.tolist()} boxes after NMS, PyTorch {wanted.tolist()}')
        if not counts.any():
            return Differences()
        found['boxes'], found['scores'] = found['dets'][..., :-1], found['dets'][..., -1]
        prior = _same_detections(found, expected, limits)
        best = of_priors(expected['scores'], prior).gather(2, found['labels'].clamp(min=0)[..., None])[..., 0]
        others = extras_of(expected, prior, 'masks' in found)
        expected = dict(boxes=of_priors(expected['boxes'], prior), scores=best, **others)
    else:
        seen = expected['scores'].amax(-1) > 0.001  # boxes with a relevant score; all images of a classifier
    differences = _differences(found, expected, seen)
    if not options.int8 and not all(
        off <= limit for off, limit in zip(differences, (*limits, limits[1]), strict=True)
    ):  # nor NaN
        masks = f', masks by {differences.masks:.3g} of their largest number' if differences.masks else ''
        raise UserError(
            f'{options.format} differs from PyTorch: boxes or keypoints by {differences.boxes:.3g} pixels, scores by '
            f'{differences.scores:.3g}{masks}. Nothing was written; try another --form or --opset'
        )
    return differences


def _same_detections(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], limits: tuple[float, float]
) -> Tensor:
    """For every detection the prior that is nearest in its box and its score, (B, K)."""
    pixels, share = limits
    boxes = torch.cdist(found['boxes'].double(), expected['boxes'].double()) / pixels  # (B, K, N)
    labels = found['labels'].clamp(min=0)[:, None].expand(-1, expected['scores'].shape[1], -1)
    scores = expected['scores'].gather(2, labels).mT - found['scores'][..., None]  # (B, K, N)
    return (boxes + scores.abs() / share).argmin(2)


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], seen: Tensor) -> Differences:
    """The largest differences, where a row has an object."""
    pixels, shares, masks = [0.0], [0.0], [0.0]
    for name, value in expected.items():
        off = (found[name] - value).abs()
        off = off if name == 'prototypes' else off[seen]  # those are of an image
        if not off.numel():
            continue
        if name == 'keypoints':  # horizontal, vertical, score
            pixels.append(float(off[..., :2].max()))
            shares.append(float(off[..., 2].max()))
        elif name in ('boxes', 'scores'):
            (pixels if name == 'boxes' else shares).append(float(off.max()))
        else:
            masks.append(float(off.max() / value.abs().max()))
    return Differences(*(float(torch.tensor(each).max()) for each in (pixels, shares, masks)))  # NaN, if one is
