"""Post-training quantisation to int8, by each runtime's own toolkit.

Convolutions with constant kernels are quantised; kernels that are mixed in the graph stay in float32.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmdyn.inference.runtimes import LITERT_INPUT, openvino_core


def quantise_onnx(path: Path, images: list[np.ndarray]) -> None:
    """Quantise an ONNX file in place, with ONNX Runtime's static quantisation (QDQ, per channel).

    Args:
        path: The file.
        images: Batches to calibrate with, (B, 3, H, W) each.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    onnxruntime.set_default_logger_severity(3)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = iter(images)

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {'images': batch}

    prepared, quantised = path.with_suffix('.prepared.onnx'), path.with_suffix('.int8.onnx')
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    model = onnx.load(prepared)
    constants = {tensor.name for tensor in model.graph.initializer}
    mixed = [node.name for node in model.graph.node if node.op_type == 'Conv' and node.input[1] not in constants]
    quantize_static(
        prepared,
        quantised,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=['Conv'],
        nodes_to_exclude=mixed,
    )
    result = onnx.load(quantised)
    del result.metadata_props[:]  # the toolkit's
    result.metadata_props.extend(onnx.load(path).metadata_props)
    onnx.save(result, path)
    for file in (prepared, quantised):
        file.unlink()


PASSING = ('Reshape', 'Squeeze', 'Unsqueeze', 'Split', 'VariadicSplit', 'Gather', 'Convert', 'StridedSlice', 'Slice')


def _users(node) -> list[tuple[Any, int]]:
    """The nodes that use the outputs of an OpenVINO node, directly or after reshapes, and the index of the input."""
    users = []
    for output in node.outputs():
        for target in output.get_target_inputs():
            user = target.get_node()
            users += _users(user) if user.get_type_name() in PASSING else [(user, target.get_index())]
    return users


def _mixing(model) -> list[str]:
    """Nodes of an OpenVINO model that mix kernels, and those that convolve with them."""
    names = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() != 'MatMul':
            continue
        for user, index in _users(node):
            kind = user.get_type_name()
            if kind in ('TensorIterator', 'Loop') or ('Convolution' in kind and index == 1):
                names |= {node.get_friendly_name(), user.get_friendly_name()}
    return sorted(names)


def quantise_openvino(path: Path, images: list[np.ndarray]) -> None:
    """Quantise an OpenVINO model in place, with NNCF.

    Args:
        path: The ``.xml``.
        images: Batches to calibrate with, (B, 3, H, W) each.
    """
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino_core().read_model(path)
    mixing = _mixing(model)
    ignored = nncf.IgnoredScope(names=mixing) if mixing else None
    quantised = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images), ignored_scope=ignored)
    whole = path.with_stem(f'{path.stem}.int8')
    openvino.save_model(quantised, whole, compress_to_fp16=False)
    del model, quantised  # they hold the file that is replaced
    for suffix in ('.xml', '.bin'):
        whole.with_suffix(suffix).replace(path.with_suffix(suffix))


def quantise_litert(path: Path, images: list[np.ndarray]) -> None:
    """Quantise a LiteRT file in place, with AI Edge Quantizer: activations and weights of convolutions.

    Args:
        path: The ``.tflite``, without metadata.
        images: Batches to calibrate with, (B, 3, H, W) each.
    """
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    kinds = (TFLOperationName.CONV_2D, TFLOperationName.DEPTHWISE_CONV_2D)
    quantizer = Quantizer(str(path))
    for kind in kinds:
        quantizer.add_static_config('.*', kind, activation_num_bits=8, weight_num_bits=8)
    model = flatbuffers.read_model(str(path))
    for graph in model.subgraphs:
        for node in graph.operators:
            kind = flatbuffers.TFL_OP_CODE_TO_NAME.get(model.operatorCodes[node.opcodeIndex].builtinCode)
            if kind not in kinds:
                continue
            kernel = model.buffers[graph.tensors[node.inputs[1]].buffer].data
            if kernel is None or not len(kernel):  # it is mixed in the graph
                scope = re.escape(flatbuffers.get_op_scope(node, graph.tensors))
                quantizer.update_quantization_recipe(scope, kind, algorithm_key='no_quantize')
    ranges = quantizer.calibrate({'serving_default': [{LITERT_INPUT: batch} for batch in images]})
    quantised = path.with_stem(f'{path.stem}.int8')
    quantizer.quantize(ranges).export_model(str(quantised))
    quantised.replace(path)


def quantise_coreml(path: Path, _: list[np.ndarray]) -> None:
    """Quantise the weights of a Core ML package in place, with coremltools; activations stay, as only macOS runs it.

    Args:
        path: The ``.mlpackage``.
    """
    import coremltools as ct
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights

    model = ct.models.MLModel(str(path), skip_model_load=True)
    quantised = linear_quantize_weights(model, OptimizationConfig(OpLinearQuantizerConfig(mode='linear_symmetric')))
    shutil.rmtree(path)
    quantised.save(str(path))


TOOLKITS = {
    'onnx': quantise_onnx,
    'openvino': quantise_openvino,
    'coreml': quantise_coreml,
    'litert': quantise_litert,
}
TOOLKIT_PACKAGES = {'openvino': 'nncf', 'litert': 'ai_edge_quantizer'}  # beside those of the format
WEIGHTS_ONLY = ('coreml',)  # no images are needed
