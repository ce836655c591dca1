"""Post-training quantisation to int8, by each runtime's own toolkit.

Convolutions with constant kernels are quantised; kernels that are mixed in the graph stay in float32.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


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

    from mmdyn.inference.runtimes import openvino_core

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


TOOLKITS = {'onnx': quantise_onnx, 'openvino': quantise_openvino}
