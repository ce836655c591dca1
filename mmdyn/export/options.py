"""What can be exported how: the options, whether they go together, and how dynamic convolutions are written."""

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
OPSETS = range(18, 24)  # that both the exporter writes and ONNX Runtime reads


class ExportOptions(NamedTuple):
    """What to export.

    Example:
        >>> check_options(ExportOptions(format='tflite'))
        Traceback (most recent call last):
        ...
        mmdyn.errors.UserError: --format must be one of onnx, openvino, torch_export, ncnn, got tflite
    """

    format: str = 'onnx'  # or 'openvino', 'torch_export', 'ncnn'
    batch: int | None = None  # images at a time; None leaves it open
    nms: bool = False
    half: bool = False
    int8: bool = False
    square: bool = True  # False leaves height and width open
    opset: int = 18
    form: ExportForm | None = None  # of dynamic convolutions; None chooses
    calibration: int = 128  # images of the training set, for int8


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
    if options.format == 'ncnn' and (options.batch != 1 or options.nms or not options.square):
        raise UserError(
            'ncnn takes one image of one size at a time, without NMS: give --batch 1, and neither --nms nor '
            '--dynamic-size'
        )
    if options.format == 'ncnn' and options.form == 'per_sample':
        raise UserError('ncnn takes constant kernels: leave --form out, or give mixed_outputs or mixed_inputs')
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
    """How dynamic convolutions are written, and what that costs.

    ONNX Runtime and OpenVINO convolve with kernels that are mixed in the graph, and loop over a batch of unknown size;
    so does PyTorch. Constant kernels are for runtimes that can do neither, such as ncnn, at M times
    the work of the layers.

    Args:
        model: The detector.
        options: What is exported.

    Raises:
        UserError: This PyTorch cannot write the form.
    """
    layers = dynamic_layers(model)
    if not layers:
        return None, 'static: constant kernels'
    form = options.form or ('mixed_outputs' if options.format == 'ncnn' else 'per_sample')
    experts = max(layer.num_experts for layer in layers.values())
    if form != 'per_sample':
        return form, f'{len(layers)} layers with constant kernels and {experts} times their work, for any batch'
    loop = options.batch is None or options.batch > UNROLLED
    if loop and options.format in ('onnx', 'openvino') and not writes_loops():
        raise UserError(
            f'PyTorch {torch.__version__} cannot write ONNX that loops over the images of a batch. Install PyTorch 2.8 '
            f'or later, or give --batch N of at most {UNROLLED}, or --form mixed_outputs'
        )
    how = 'a loop over the images' if loop else 'one convolution per image'
    return form, f'{len(layers)} layers with kernels mixed in the graph: {how}, no more arithmetic than static'
