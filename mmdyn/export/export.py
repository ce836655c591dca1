"""Export: a model and its checkpoint to ONNX, OpenVINO or ``torch.export``, compared with PyTorch first.

``options.py`` selects how dynamic convolutions are written.
"""

import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from torch import nn
from torch.export import Dim, ExportedProgram

from mmdyn.checkpoints import EXPORTED
from mmdyn.errors import UserError
from mmdyn.inference.onnx_detector import BEST_CLASSES
from mmdyn.inference.runtimes import runs_here
from mmdyn.layers import export_form, fold_batch_norms
from mmdyn.layers.export_forms import ExportForm
from mmdyn.logs import quiet
from mmdyn.running.dataset_images import calibration_images
from mmdyn.running.image_channels import image_channels, keeps_sixteen_bits
from mmdyn.running.image_size import STRIDE, crop_sizes, test_size
from mmdyn.running.loading import class_names, load_checkpoint_model
from mmdyn.tasks import head_of
from mmdyn.version import __version__

from .agreement import Differences, check_agreement, examples
from .graph import ClassificationGraph, DetectionGraphWithNMS, plain_graph
from .options import ExportOptions, check_options, choose_form
from .quantise import TOOLKITS, WEIGHTS_ONLY
from .writers import (
    add_litert_metadata,
    write_coreml,
    write_engine,
    write_litert,
    write_ncnn,
    write_onnx,
    write_openvino,
    write_torch_export,
)


class Exported(NamedTuple):
    """The result of an export.

    Example:
        >>> exported = Exported(Path('model.onnx'), 10_000_000, None, 'static: constant kernels', 1e-4, 1e-6)
        >>> f'{exported.path}: {exported.size / 1e6:.1f} MB'
        'model.onnx: 10.0 MB'
    """

    path: Path
    size: int  # bytes of all its files
    form: ExportForm | None  # None for a static detector
    cost: str  # what the form costs
    boxes: float  # largest difference of a box or keypoint to PyTorch, in pixels; 0 of a classifier
    scores: float  # and of a score
    masks: float = 0.0  # and of what masks are made of, as a share of the largest number
    compared: bool = True  # False if the runtime of the file does not run on this machine


def _metadata(
    cfg: Config,
    model: BaseDetector,
    classes: tuple[str, ...] | None,
    outputs: tuple[str, ...],
    options: ExportOptions,
) -> dict[str, str]:
    """Metadata for a runtime, each entry as JSON."""
    head, preprocessor = head_of(model), model.data_preprocessor
    names, size = class_names(classes, cfg, head.num_classes), test_size(cfg)
    channels = [getattr(preprocessor, k).flatten().tolist() for k in ('mean', 'std')]
    values: dict[str, Any] = dict(
        names=names,
        stride=max(getattr(head, 'featmap_strides', [STRIDE])),
        long_side=max(size),
        size=size,
        channels=image_channels(cfg),
        to_float32=keeps_sixteen_bits(cfg),
        square=options.square,
        batch=options.batch,
        mean=channels[0],
        std=channels[1],
        pad_value=114,
        nms=options.nms,
        **_test_metadata(cfg, model),
        task=getattr(head, 'task', 'detect'),
        skeleton=getattr(head, 'skeleton', ()),
        keypoint_shape=getattr(head, 'keypoint_shape', None),
        outputs=outputs,
    )
    return {k: json.dumps(v) for k, v in values.items()} | {'mmdyn_version': __version__}


def _test_metadata(cfg: Config, model: Any) -> dict[str, Any]:
    """Channels and thresholds of a test; the pipeline of a classifier has turned the channels."""
    if not hasattr(model, 'bbox_head'):
        limits = dict(score_threshold=0.0, iou_threshold=None, max_detections=BEST_CLASSES)
        return dict(bgr_to_rgb=True, resize=crop_sizes(cfg)[0], **limits)
    test = model.bbox_head.test_cfg
    return dict(
        bgr_to_rgb=bool(model.data_preprocessor._channel_conversion),
        score_threshold=test.score_thr,
        iou_threshold=test.nms.iou_threshold,
        max_detections=test.max_per_img,
    )


def trace(cfg: Config, graph: nn.Module, options: ExportOptions, form: ExportForm | None) -> ExportedProgram:
    """Turn the graph into a program of plain operators.

    Args:
        cfg: Config, for the size.
        graph: What :func:`plain_graph` gives, or with NMS.
        options: Options of the export: fixed or dynamic batch and size.
        form: Export form of dynamic convolutions.
    """
    dims: dict[int, Any] = {} if options.batch else {0: Dim('batch', max=4096)}
    if not options.square:
        dims |= {2: 32 * Dim('rows', max=128), 3: 32 * Dim('columns', max=128)}
    height, width = test_size(cfg)
    width += 32 if width == height and not options.square else 0  # equal sides would count as one dimension
    shape = (options.batch or 2, image_channels(cfg), height, width)
    torch.compiler.reset()  # otherwise the loop over images keeps fixed sizes of an earlier export
    with quiet(), torch.no_grad(), export_form(form or 'per_sample'):
        shapes = (dims,) if dims else None
        # strict, the default of PyTorch 2.7, hides the size of the batch: a fixed one would become a loop, too
        return torch.export.export(graph, (torch.zeros(shape),), dynamic_shapes=shapes, strict=False)


def export_detector(cfg: Config, checkpoint: str | Path, target: str | Path, options: ExportOptions) -> Exported:
    """Write a detector for another runtime, and compare its outputs with PyTorch.

    Args:
        cfg: Config of the detector.
        checkpoint: Its checkpoint.
        target: File to write; an existing one is replaced only if the new one agrees with PyTorch, where its runtime
            exists for this system.
        options: Options of the export.

    Raises:
        UserError: As in :func:`check_options` and :func:`load_checkpoint_model`; or the result differs from
            PyTorch's. Nothing is written then.
    """
    check_options(options)
    target = Path(target)
    if target.suffix != EXPORTED[options.format]:
        raise UserError(f'a file for {options.format} must end in {EXPORTED[options.format]}, got {target}')
    loaded = load_checkpoint_model(cfg, checkpoint)
    model = loaded.model
    fold_batch_norms(model.eval()).requires_grad_(False)
    form, cost = choose_form(model, options)
    reference = plain_graph(model)
    if options.masks and 'prototypes' not in reference.names:
        raise UserError('--masks is for models of segmentation: omit it')
    if isinstance(reference, ClassificationGraph) and (options.nms or not options.square):
        raise UserError('--nms and --dynamic-size are for models that find objects: omit them for a classifier')
    test = _test_metadata(cfg, model)
    limits = dict(iou=test['iou_threshold'], score=test['score_threshold'], keep=test['max_detections'])
    with_nms: Any = partial(DetectionGraphWithNMS, **limits, masks=options.masks)
    images = examples(model, test_size(cfg), options.batch or 3)
    with torch.no_grad():
        expected = dict(zip(reference.names, reference(images), strict=True))
        kept = with_nms(reference, one_operator=False)(images)[1] if options.nms else None
    graph: Any
    graph = plain_graph(model, options.half and options.format in ('onnx', 'torch_export'))
    if options.nms:
        graph = with_nms(graph, one_operator=options.format != 'torch_export')
    metadata = _metadata(cfg, model, loaded.classes, graph.names, options)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.exporting-') as folder:
        written = Path(folder, target.name)
        _write(cfg, graph, written, metadata, options, form)
        if options.int8:
            _quantise(written, cfg, model, options)
        if options.format == 'litert':
            add_litert_metadata(written, metadata)  # the quantizer would drop it
        compared = runs_here(written)
        differences = check_agreement(written, images, expected, kept, options) if compared else Differences()
        size = sum(file.stat().st_size for file in Path(folder).rglob('*') if file.is_file())
        _publish(Path(folder), target)
    return Exported(target, size, form, cost, *differences, compared)


def _write(
    cfg: Config,
    graph: nn.Module,
    path: Path,
    metadata: dict[str, str],
    options: ExportOptions,
    form: ExportForm | None,
) -> None:
    if options.format in ('ncnn', 'litert'):  # their converters trace the module themselves
        example = torch.zeros(options.batch or 1, image_channels(cfg), *test_size(cfg))
        with quiet(), torch.no_grad(), export_form(form or 'per_sample'):
            if options.format == 'ncnn':
                write_ncnn(graph, example, path, metadata, options.half)
            else:
                write_litert(graph, example, path, options.half)
        return
    program = trace(cfg, graph, options, form)
    with quiet():
        if options.format == 'torch_export':
            write_torch_export(program, path, metadata)
        elif options.format == 'openvino':
            write_openvino(program, path, metadata, options.opset, options.half)
        elif options.format == 'coreml':
            write_coreml(program, path, metadata, options.half)
        elif options.format == 'engine':
            write_engine(program, path, metadata, options.opset, options.half)
        else:
            write_onnx(program, path, metadata, options.opset)


def _quantise(path: Path, cfg: Config, model: BaseDetector, options: ExportOptions) -> None:
    if options.format in WEIGHTS_ONLY:
        with quiet():
            TOOLKITS[options.format](path, [])
        return
    images = [image.numpy() for image in calibration_images(cfg, model.data_preprocessor, options.calibration)]
    size = options.batch or 1
    batches = [np.concatenate(images[i : i + size]) for i in range(0, len(images) - size + 1, size)]
    if not batches:
        raise UserError(f'int8 for a batch of {size} needs as many images to calibrate with, there are {len(images)}')
    with quiet():
        TOOLKITS[options.format](path, batches)


def _publish(folder: Path, target: Path) -> None:
    """Move what was written to its folder, the target last; folders that toolkits left behind go."""
    for file in sorted(folder.iterdir(), key=lambda f: f.name == target.name):
        if file.is_dir() and file.name != target.name:
            shutil.rmtree(file)
        elif file.is_dir():  # a package: no call replaces one folder by another
            before = target.with_name(f'.{target.name}.before')
            if target.exists():
                target.rename(before)
            file.rename(target)
            shutil.rmtree(before, ignore_errors=True)
        else:
            os.replace(file, target.with_name(file.name))
