"""Export options: their values, their valid combinations, and the export form of dynamic convolutions."""

from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import nn

from mmdyn.errors import UserError
from mmdyn.layers import dynamic_layers
from mmdyn.layers.export_forms import FORMS, UNROLLED, ExportForm

from .quantise import TOOLKITS

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torch_export': '.pt2', 'ncnn': '.param'}
PACKAGES: dict[str, tuple[str, ...]] = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
}
PACKAGES |= {'torch_export': (), 'ncnn': ('pnnx', 'ncnn')}
OPSETS = range(18, 24)  # supported by both the exporter and ONNX Runtime


class ExportOptions(NamedTuple):
    """What to export.

    Example:
        >>> check_options(ExportOptions(format='tflite'))
        Traceback (most recent call last):
        ...
        mmdyn.errors.UserError: --format must be one of onnx, openvino, torch_export, ncnn, got tflite
    """

    format: str = 'onnx'  # or 'openvino', 'torch_export', 'ncnn'
    batch: int | None = None  # batch size; None for a dynamic one
    nms: bool = False
    half: bool = False
    int8: bool = False
    square: bool = True  # False for dynamic height and width
    opset: int = 18
    form: ExportForm | None = None  # of dynamic convolutions; None takes the default
    calibration: int = 128  # images of the training set, for int8


def check_options(options: ExportOptions) -> None:
    """Check the options before a model is built.

    Raises:
        UserError: An option is invalid, or a package is not installed.
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
    if options.format == 'ncnn' and (options.batch != 1 or options.nms or not options.square):
        raise UserError(
            'ncnn takes one image of a fixed size at a time, without NMS: set --batch 1, and neither --nms nor '
            '--dynamic-size'
        )
    if options.format == 'ncnn' and options.form == 'per_sample':
        raise UserError('ncnn needs constant kernels: omit --form, or set mixed_outputs or mixed_inputs')
    if options.batch is not None and options.batch < 1:
        raise UserError(f'--batch must be dynamic or at least 1, got {options.batch}')
    if options.opset not in OPSETS:
        raise UserError(f'--opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {options.opset}')
    if options.form is not None and options.form not in FORMS:
        raise UserError(f'--form must be one of {", ".join(FORMS)}, got {options.form}')


def writes_loops() -> bool:
    """Whether PyTorch's ONNX exporter knows ``scan``, as it does from PyTorch 2.8 on."""
    from torch.onnx._internal.exporter._torchlib.ops import hop

    return hasattr(hop, 'higher_order_scan')


def choose_form(model: nn.Module, options: ExportOptions) -> tuple[ExportForm | None, str]:
    """Choose the export form of dynamic convolutions, and describe its cost.

    ONNX Runtime and OpenVINO convolve with kernels that are mixed in the graph, and loop over a batch of unknown size;
    so does PyTorch. Constant kernels are for runtimes that support neither, such as ncnn, at M times the work of the
    layers.

    Args:
        model: The detector.
        options: Options of the export.

    Raises:
        UserError: This PyTorch cannot write the form.
    """
    layers = dynamic_layers(model)
    if not layers:
        return None, 'static: constant kernels'
    form = options.form or ('mixed_outputs' if options.format == 'ncnn' else 'per_sample')
    experts = max(layer.num_experts for layer in layers.values())
    if form != 'per_sample':
        return form, f'{len(layers)} layers with constant kernels and {experts} times the work, for any batch'
    loop = options.batch is None or options.batch > UNROLLED
    if loop and options.format in ('onnx', 'openvino') and not writes_loops():
        raise UserError(
            f'PyTorch {torch.__version__} cannot write ONNX that loops over the images of a batch. Install PyTorch 2.8 '
            f'or later, or give --batch N of at most {UNROLLED}, or --form mixed_outputs'
        )
    how = 'a loop over the images' if loop else 'one convolution per image'
    return form, f'{len(layers)} layers with kernels mixed in the graph: {how}, no more arithmetic than static'
