"""Writers of an exported program, one for each format.

The packages are imported where they are used: none is needed to import this module.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mmdyn.inference.runtimes import METADATA, openvino_core


def write_onnx(program: ExportedProgram, path: Path, metadata: dict[str, str], opset: int) -> None:
    """Write an ONNX file.

    Args:
        program: What :func:`mmdyn.export.export.trace` gave.
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


def write_openvino(program: ExportedProgram, path: Path, metadata: dict[str, str], opset: int, half: bool) -> None:
    """Write an OpenVINO model, ``.xml`` and ``.bin``, by way of ONNX.

    Args:
        program: What :func:`mmdyn.export.export.trace` gave.
        path: The ``.xml``.
        metadata: Texts by name.
        opset: Version of ONNX's operators in the intermediate file.
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
        program: What :func:`mmdyn.export.export.trace` gave.
        path: File to write.
        metadata: Texts by name.
    """
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def write_ncnn(graph: nn.Module, example: Tensor, path: Path, metadata: dict[str, str], half: bool) -> None:
    """Write an ncnn model, ``.param`` and ``.bin``, and the metadata as ``.json`` in the same folder.

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
    """Redirect the output of other programs to a file descriptor."""
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
