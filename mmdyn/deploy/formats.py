"""The file formats: how a program is written into each, and how a file is opened again.

The runtimes are imported where they are used: none is needed to import this package.
"""

import contextlib
import functools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mmdyn.errors import UserError

from .onnx_detector import OnnxDetector, Run

METADATA = 'mmdyn'  # the entry of an OpenVINO model, the extra file of a torch.export archive


def write_onnx(program: ExportedProgram, path: Path, metadata: dict[str, str], opset: int) -> None:
    """Write an ONNX file.

    Args:
        program: What :func:`mmdyn.deploy.export.trace` gave.
        path: File to write.
        metadata: Texts by name.
        opset: Version of ONNX's operators.
    """
    import onnx
    from onnxscript import opset18 as op

    def nms(boxes, scores, iou: float, score: float):
        most = op.Constant(value_int=2**31 - 1)
        limits = (op.Constant(value_floats=[value]) for value in (iou, score))
        return op.NonMaxSuppression(boxes, scores, most, *limits)

    written = torch.onnx.export(
        program,
        input_names=['images'],
        output_names=['dets', 'labels'] if json.loads(metadata['nms']) else ['boxes', 'scores'],
        opset_version=opset,
        custom_translation_table={torch.ops.mmdyn.nms_by_class.default: nms},
        verbose=False,
        external_data=False,
    )
    assert written is not None  # that of a program is always returned
    model = written.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = 'mmdyn'
    onnx.checker.check_model(model)
    onnx.save(model, path)


@functools.cache
def openvino_core():
    """The one core of the process.

    Each lends the process a stack for signals, and puts back the one before when it goes: where cores do not go in the
    reverse order, the process is left with a stack that is gone, and dies of its next signal.
    """
    import openvino

    return openvino.Core()


def write_openvino(program: ExportedProgram, path: Path, metadata: dict[str, str], opset: int, half: bool) -> None:
    """Write an OpenVINO model, ``.xml`` and ``.bin``, by way of ONNX.

    Args:
        program: What :func:`mmdyn.deploy.export.trace` gave.
        path: The ``.xml``.
        metadata: Texts by name.
        opset: Version of ONNX's operators on the way.
        half: Keep the weights in float16.
    """
    import openvino

    onnx_file = path.with_suffix('.onnx')
    write_onnx(program, onnx_file, metadata, opset)
    model = openvino_core().read_model(onnx_file)  # convert_model takes a comma in the path for a list of files
    model.set_rt_info(json.dumps(metadata), METADATA)
    openvino.save_model(model, path, compress_to_fp16=half)
    onnx_file.unlink()


def write_torch_export(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Write a ``.pt2`` archive.

    Args:
        program: What :func:`mmdyn.deploy.export.trace` gave.
        path: File to write.
        metadata: Texts by name.
    """
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def write_ncnn(graph: nn.Module, example: Tensor, path: Path, metadata: dict[str, str], half: bool) -> None:
    """Write an ncnn model, ``.param`` and ``.bin``, with the metadata beside it as ``.json``.

    Args:
        graph: The detector, without NMS.
        example: Images, (1, 3, H, W).
        path: The ``.param``.
        metadata: Texts by name.
        half: Keep the weights in float16.
    """
    import pnnx

    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder, 'traced.pt')
        torch.jit.trace(graph, example, check_trace=False).save(traced)
        with open(os.devnull, 'w') as nowhere, _output_to(nowhere.fileno()):
            pnnx.convert(str(traced), (example,), fp16=half, ncnnparam=str(path), ncnnbin=str(path.with_suffix('.bin')))
    path.with_suffix('.json').write_text(json.dumps(metadata))


@contextlib.contextmanager
def _output_to(descriptor: int) -> Iterator[None]:
    """Send what other programs print meanwhile elsewhere."""
    sys.stdout.flush()
    before = os.dup(1), os.dup(2)
    try:
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        yield
    finally:
        for stream, copy in zip((1, 2), before, strict=True):
            os.dup2(copy, stream)
            os.close(copy)


class NcnnDetector(OnnxDetector):
    """The same with ncnn on a CPU in float32; ``path`` is the ``.param``."""

    def _load(self, threads: int | None) -> tuple[Run, dict[str, str]]:
        try:
            import ncnn
        except ImportError as e:
            raise ValueError('ncnn is not installed: pip install ncnn') from e
        path = Path(self.path)
        notes, weights = path.with_suffix('.json'), path.with_suffix('.bin')
        net = ncnn.Net()
        for option in ('packed', 'storage', 'arithmetic'):
            setattr(net.opt, f'use_fp16_{option}', False)
        net.opt.use_bf16_storage = False
        net.opt.num_threads = threads or net.opt.num_threads
        if not weights.is_file() or net.load_param(str(path)) or net.load_model(str(weights)):
            raise ValueError(f'{path} and {weights} do not load in ncnn')
        source, targets = net.input_names()[0], net.output_names()

        def run(images: np.ndarray) -> list[np.ndarray]:
            extractor = net.create_extractor()
            extractor.input(source, ncnn.Mat(np.ascontiguousarray(images[0])))
            return [np.array(extractor.extract(name)[1])[None] for name in targets]

        return run, json.loads(notes.read_text()) if notes.is_file() else {}


class OpenVINODetector(OnnxDetector):
    """The same with OpenVINO; ``path`` is the ``.xml``."""

    def _load(self, threads: int | None) -> tuple[Run, dict[str, str]]:
        try:
            core = openvino_core()
        except ImportError as e:
            raise ValueError('OpenVINO is not installed: pip install -r requirements/deploy.txt') from e
        options = {'INFERENCE_PRECISION_HINT': 'f32'} | ({'INFERENCE_NUM_THREADS': threads} if threads else {})
        try:
            model = core.read_model(self.path)
            compiled = core.compile_model(model, 'CPU', options)
        except RuntimeError as e:
            raise ValueError(f'{self.path} does not load in OpenVINO: {str(e).splitlines()[0]}') from e
        texts = json.loads(model.get_rt_info(METADATA).astype(str)) if model.has_rt_info(METADATA) else {}
        return lambda images: [np.array(y) for y in compiled(images).values()], texts


class TorchExportDetector(OnnxDetector):
    """The same with PyTorch; ``path`` is a ``.pt2`` of one's own, as loading one can run code."""

    def _load(self, threads: int | None) -> tuple[Run, dict[str, str]]:
        extra = {METADATA: ''}
        module = torch.export.load(self.path, extra_files=extra).module()

        @torch.no_grad()
        def run(images: np.ndarray) -> list[np.ndarray]:
            return [y.numpy() for y in module(torch.from_numpy(images))]

        return run, json.loads(extra[METADATA])


DETECTORS = {'.onnx': OnnxDetector, '.xml': OpenVINODetector, '.param': NcnnDetector, '.pt2': TorchExportDetector}


def open_exported(path: str | Path, threads: int | None = None) -> OnnxDetector:
    """Open an exported file in its runtime.

    Args:
        path: ``.onnx``, ``.xml`` of OpenVINO, ``.param`` of ncnn, or a ``.pt2`` that was just written here.
        threads: Of the runtime; None lets it choose.

    Raises:
        UserError: The file is missing, does not load, or was not exported by mmdyn.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no exported file at {path.absolute()}')
    if path.suffix not in DETECTORS:
        raise UserError(f'{path} is none of {", ".join(DETECTORS)}')
    try:
        return DETECTORS[path.suffix](path, threads)
    except ValueError as e:
        raise UserError(str(e)) from e
