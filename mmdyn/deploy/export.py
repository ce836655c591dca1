"""Export: a detector and its checkpoint to ONNX, OpenVINO or ``torch.export``, compared with PyTorch first.

How dynamic convolutions are written is chosen here, see :func:`choose_form`.
"""

import contextlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmdyn.errors import UserError
from mmdyn.layers import export_form, fold_batch_norms
from mmdyn.layers.export_forms import FORMS, UNROLLED, ExportForm
from mmdyn.version import __version__

from .calibration import calibration_images
from .counterpart import dynamic_layers
from .graph import DetectionGraph, DetectionGraphWithNMS
from .loading import load_model
from .quantise import TOOLKITS
from .upcycle import photograph

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torch_export': '.pt2'}
PACKAGES: dict[str, tuple[str, ...]] = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
}
PACKAGES |= {'torch_export': ()}
OPSETS = range(18, 24)  # that both the exporter writes and ONNX Runtime reads
FULL, HALF = (0.01, 1e-4), (4.0, 0.05)  # differences to PyTorch that are taken: pixels, scores


class ExportOptions(NamedTuple):
    """What to export."""

    format: str = 'onnx'  # or 'openvino', 'torch_export'
    batch: int | None = None  # images at a time; None leaves it open
    nms: bool = False
    half: bool = False
    int8: bool = False
    square: bool = True  # False leaves height and width open
    opset: int = 18
    form: ExportForm | None = None  # of dynamic convolutions; None chooses
    calibration: int = 128  # images of the training set, for int8


class Exported(NamedTuple):
    """A file that was written."""

    path: Path
    size: int  # bytes of all its files
    form: ExportForm | None  # None for a static detector
    cost: str  # what the form costs
    boxes: float  # largest difference of a box to PyTorch, in pixels
    scores: float  # and of a score


def check_options(options: ExportOptions) -> None:
    """See that an export is possible before a model is built.

    Raises:
        UserError: An option is out of range, or a package is not installed.
    """
    if options.format not in SUFFIXES:
        raise UserError(f'--format must be one of {", ".join(SUFFIXES)}, got {options.format}')
    missing = [name for name in PACKAGES[options.format] if find_spec(name) is None]
    if missing:
        raise UserError(f'{options.format} needs {" and ".join(missing)}: pip install -r requirements/deploy.txt')
    if options.int8 and (options.half or options.format not in TOOLKITS):
        raise UserError(f'--int8 is for {" and ".join(TOOLKITS)}, without --half')
    if options.int8 and options.format == 'openvino' and find_spec('nncf') is None:
        raise UserError('int8 for OpenVINO needs nncf: pip install -r requirements/deploy.txt')
    if options.batch is not None and options.batch < 1:
        raise UserError(f'--batch is dynamic or a number of images from 1, got {options.batch}')
    if options.opset not in OPSETS:
        raise UserError(f'--opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {options.opset}')
    if options.form is not None and options.form not in FORMS:
        raise UserError(f'--form must be one of {", ".join(FORMS)}, got {options.form}')


def choose_form(model: nn.Module, options: ExportOptions) -> tuple[ExportForm | None, str]:
    """How dynamic convolutions are written, and what that costs.

    ONNX Runtime and OpenVINO convolve with kernels that are mixed in the graph, and loop over a batch of unknown size;
    so does PyTorch. Constant kernels are for runtimes that can do neither, at M times the work of the layers.

    Args:
        model: The detector.
        options: What is exported.
    """
    layers = dynamic_layers(model)
    if not layers:
        return None, 'static: constant kernels'
    form = options.form or 'per_sample'
    experts = max(layer.num_experts for layer in layers.values())
    if form != 'per_sample':
        return form, f'{len(layers)} layers with constant kernels and {experts} times their work, for any batch'
    how = 'one convolution per image' if (options.batch or UNROLLED + 1) <= UNROLLED else 'a loop over the images'
    return form, f'{len(layers)} layers with kernels mixed in the graph: {how}, no more arithmetic than static'


def _metadata(
    cfg: Config, model: BaseDetector, classes: tuple[str, ...] | None, options: ExportOptions
) -> dict[str, str]:
    """What a runtime must know, each as JSON."""
    head, preprocessor, test = model.bbox_head, model.data_preprocessor, model.bbox_head.test_cfg
    names = list(classes) if classes else [f'class {i}' for i in range(head.num_classes)]
    channels = [getattr(preprocessor, k).flatten().tolist() for k in ('mean', 'std')]
    values: dict[str, Any] = dict(
        names=names,
        stride=max(head.featmap_strides),
        long_side=long_side(cfg),
        square=options.square,
        batch=options.batch,
        mean=channels[0],
        std=channels[1],
        bgr_to_rgb=bool(preprocessor._channel_conversion),
        pad_value=114,
        nms=options.nms,
        score_threshold=test.score_thr,
        iou_threshold=test.nms.iou_threshold,
        max_detections=test.max_per_img,
    )
    return {k: json.dumps(v) for k, v in values.items()} | {'mmdyn_version': __version__}


def long_side(cfg: Config) -> int:
    """Pixels of the long side of a test image.

    Raises:
        UserError: The test pipeline does not say.
    """
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] in ('LongSideResize', 'YOLOv5KeepRatioResize'):
            return max(step['scale'])
    raise UserError('the test pipeline of the config has no LongSideResize, which says the size to export for')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own reports, which are for their developers, from the terminal."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(logging.NOTSET)


def trace(cfg: Config, graph: nn.Module, options: ExportOptions, form: ExportForm | None) -> ExportedProgram:
    """Turn the graph into a program of plain operators.

    Args:
        cfg: Config, for the size.
        graph: :class:`DetectionGraph`, with or without NMS.
        options: What is open and what is known.
        form: Of dynamic convolutions.
    """
    dims: dict[int, Any] = {} if options.batch else {0: Dim('batch', max=4096)}
    if not options.square:
        dims |= {2: 32 * Dim('rows', max=128), 3: 32 * Dim('columns', max=128)}
    size = long_side(cfg)
    shape = (options.batch or 2, 3, size, size if options.square else size + 32)
    torch.compiler.reset()  # else the loop over images keeps sizes that an earlier export of the process had fixed
    with _quiet(), torch.no_grad(), export_form(form or 'per_sample'):
        return torch.export.export(graph, (torch.zeros(shape),), dynamic_shapes=(dims,) if dims else None)


def export_detector(cfg: Config, checkpoint: str | Path, target: str | Path, options: ExportOptions) -> Exported:
    """Write a detector for another runtime, and compare it with PyTorch there.

    Args:
        cfg: Config of the detector.
        checkpoint: Its checkpoint.
        target: File to write; an existing one is replaced when the new one is whole and agrees.
        options: What to export.

    Raises:
        UserError: As in :func:`check_options` and :func:`load_model`; or the result differs from PyTorch's. Nothing is
            written then.
    """
    check_options(options)
    target = Path(target)
    if target.suffix != SUFFIXES[options.format]:
        raise UserError(f'a file for {options.format} ends in {SUFFIXES[options.format]}, got {target}')
    loaded = load_model(cfg, checkpoint)
    model = loaded.model
    fold_batch_norms(model.eval()).requires_grad_(False)
    form, cost = choose_form(model, options)
    test, metadata = model.bbox_head.test_cfg, _metadata(cfg, model, loaded.classes, options)
    reference = DetectionGraph(model)
    images = _examples(cfg, model, options)
    with torch.no_grad():
        expected = reference(images)
    plain = DetectionGraph(model, options.half and options.format != 'openvino')
    limits = test.nms.iou_threshold, test.score_thr, test.max_per_img
    whole = DetectionGraphWithNMS(plain, *limits, one_operator=options.format != 'torch_export')
    program = trace(cfg, whole if options.nms else plain, options, form)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.exporting-') as folder:
        written = Path(folder, target.name)
        _write(program, written, metadata, options)
        if options.int8:
            _quantise(written, cfg, model, options)
        boxes, scores = _compare(written, images, expected, options)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        _publish(Path(folder), target)
    return Exported(target, size, form, cost, boxes, scores)


def _examples(cfg: Config, model: BaseDetector, options: ExportOptions) -> Tensor:
    """A photograph and its parts, normalised as the detector wants it."""
    size, count = long_side(cfg), options.batch or 3
    image = photograph(size)
    views = [image, image.flip(3), image.roll(size // 3, 2), image.transpose(2, 3)]
    batch = torch.cat([views[i % 4] for i in range(count)])
    return (batch - model.data_preprocessor.mean) / model.data_preprocessor.std


def _write(program: ExportedProgram, path: Path, metadata: dict[str, str], options: ExportOptions) -> None:
    from .formats import write_onnx, write_openvino, write_torch_export

    with _quiet():
        if options.format == 'torch_export':
            write_torch_export(program, path, metadata)
        elif options.format == 'openvino':
            write_openvino(program, path, metadata, options.opset, options.half)
        else:
            write_onnx(program, path, metadata, options.opset)


def _quantise(path: Path, cfg: Config, model: BaseDetector, options: ExportOptions) -> None:
    images = [image.numpy() for image in calibration_images(cfg, model.data_preprocessor, options.calibration)]
    size = options.batch or 1
    batches = [np.concatenate(images[i : i + size]) for i in range(0, len(images) - size + 1, size)]
    if not batches:
        raise UserError(f'int8 for a batch of {size} needs as many images to calibrate with, there are {len(images)}')
    with _quiet():
        TOOLKITS[options.format](path, batches)


def _publish(folder: Path, target: Path) -> None:
    """Move what was written into its place, the named file last."""
    for file in sorted(folder.iterdir(), key=lambda f: f.name == target.name):
        if file.is_dir():
            shutil.rmtree(file)
        else:
            os.replace(file, target.with_name(file.name))


def _compare(
    path: Path, images: Tensor, expected: tuple[Tensor, Tensor], options: ExportOptions
) -> tuple[float, float]:
    """Largest differences of boxes and scores to PyTorch.

    Raises:
        UserError: They are too large.
    """
    from .formats import open_exported

    boxes, scores = expected
    first, second = (torch.from_numpy(x) for x in open_exported(path).run(images.numpy()))
    if options.nms:
        corners, best = _nearest(first, second, boxes, scores)
        off = float((first[..., :4] - corners).abs()[second >= 0].max()) if (second >= 0).any() else 0.0
        off_score = float((first[..., 4] - best).abs()[second >= 0].max()) if (second >= 0).any() else 0.0
    else:
        seen = scores.amax(2) > 0.001  # boxes that any use of them looks at
        off = float((first - boxes).abs().amax(2)[seen].max()) if seen.any() else 0.0
        off_score = float((second - scores).abs().max())
    pixels, share = HALF if options.half else FULL
    if not options.int8 and not (off <= pixels and off_score <= share):
        raise UserError(
            f'{options.format} gives other results than PyTorch: boxes off by {off:.3g} pixels, scores by '
            f'{off_score:.3g}. Nothing was written; try another --form or --opset'
        )
    return off, off_score


def _nearest(found: Tensor, labels: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """For every detection, PyTorch's box that is nearest, and its score of that class."""
    place = torch.cdist(found[..., :4].double(), boxes.double()).argmin(2)  # (B, K)
    corners = boxes.gather(1, place[..., None].expand(-1, -1, 4))
    of_place = scores.gather(1, place[..., None].expand(-1, -1, scores.shape[2]))
    return corners, of_place.gather(2, labels.clamp(min=0)[..., None])[..., 0]
