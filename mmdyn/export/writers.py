"""Writers of an exported program, one for each format.

The packages are imported where they are used: none is needed to import this module.
"""

import contextlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mmdyn.errors import UserError
from mmdyn.inference.onnx_detector import output_names
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
        output_names=output_names(metadata),
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


def write_coreml(program: ExportedProgram, path: Path, metadata: dict[str, str], half: bool) -> None:
    """Write a Core ML package, for iOS 16 or macOS 13 and later.

    Args:
        program: What :func:`mmdyn.export.export.trace` gave, for a fixed batch.
        path: The ``.mlpackage``, which is a folder.
        metadata: Texts by name.
        half: Compute in float16; images and results stay float32.
    """
    import coremltools as ct

    inputs = program.graph_signature.user_inputs
    [shape] = [tuple(node.meta['val'].shape) for node in program.graph.nodes if node.name in inputs]
    with open(os.devnull, 'w') as nowhere, _output_to(nowhere.fileno()):
        model = ct.convert(
            program.run_decompositions({}),
            inputs=[ct.TensorType(name='images', shape=shape, dtype=np.float32)],
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in output_names(metadata)],
            convert_to='mlprogram',
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )
    model.user_defined_metadata[METADATA] = json.dumps(metadata)
    model.save(str(path))


def write_litert(graph: nn.Module, example: Tensor, path: Path, half: bool) -> None:
    """Write a LiteRT file (formerly TensorFlow Lite), without metadata.

    Args:
        graph: The detector, without NMS.
        example: Images, (B, 3, H, W).
        path: The ``.tflite``.
        half: Keep the weights in float16.
    """
    import litert_torch

    with open(os.devnull, 'w') as nowhere, _output_to(nowhere.fileno()):
        litert_torch.convert(graph, (example,)).export(str(path))
    if half:
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.quantizer import Quantizer

        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        quantizer = Quantizer(str(path))
        quantizer.update_quantization_recipe(
            '.*',
            qtyping.TFLOperationName.ALL_SUPPORTED,
            qtyping.OpQuantizationConfig(
                weight_tensor_config=weights,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key='float_casting',
        )
        smaller = path.with_stem(f'{path.stem}.half')
        quantizer.quantize().export_model(str(smaller))
        smaller.replace(path)


def add_litert_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Append metadata to a LiteRT file, as a zip archive: so does the format's own metadata, and runtimes ignore it."""
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(f'{METADATA}.json', json.dumps(metadata))


def write_engine(program: ExportedProgram, path: Path, metadata: dict[str, str], opset: int, half: bool) -> None:
    """Write a TensorRT engine for the GPU of this machine, by way of ONNX: not tested.

    Args:
        program: What :func:`mmdyn.export.export.trace` gave, for a fixed batch.
        path: The ``.engine``.
        metadata: Texts by name; they precede the engine in the file.
        opset: Version of ONNX's operators in the intermediate file.
        half: Allow float16.

    Raises:
        UserError: TensorRT refuses the graph, or builds no engine.
    """
    import tensorrt as trt

    onnx_file = path.with_suffix('.onnx')
    write_onnx(program, onnx_file, metadata, opset)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        faults = '; '.join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise UserError(
            f'TensorRT does not take the graph: {faults}. Try --form mixed_outputs, or collapse the detector'
        )
    settings = builder.create_builder_config()
    if half:
        settings.set_flag(trt.BuilderFlag.FP16)
    else:
        settings.clear_flag(trt.BuilderFlag.TF32)  # on by default, with a precision of 10 bits
    engine = builder.build_serialized_network(network, settings)
    if engine is None:
        raise UserError('TensorRT built no engine: its messages stand above')
    notes = json.dumps(metadata).encode()
    path.write_bytes(len(notes).to_bytes(4, 'little') + notes + bytes(engine))
    onnx_file.unlink()


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
