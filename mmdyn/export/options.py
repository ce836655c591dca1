"""Export options: their values, their valid combinations, and the export form of dynamic convolutions."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import nn

from mmdyn.errors import UserError
from mmdyn.layers import ODConv, dynamic_layers
from mmdyn.layers.export_forms import FORMS, UNROLLED, ExportForm

from .quantise import TOOLKIT_PACKAGES, TOOLKITS

DEPLOY, MOBILE = 'pip install -r requirements/deploy.txt', 'pip install -r requirements/mobile.txt'


class Format(NamedTuple):
    """What a format needs, and what it can do.

    Example:
        >>> FORMATS['ncnn'].default_form
        'mixed_outputs'
    """

    packages: tuple[str, ...]
    install: str
    any_batch: bool = False  # and any size, and NMS in the graph
    batch: int | None = None  # the only batch size, if there is only one
    default_form: ExportForm = 'per_sample'
    refused: Mapping[ExportForm, str] = {}  # forms that it cannot take, and why


FORMATS = {
    'onnx': Format(('onnx', 'onnxscript', 'onnxruntime'), DEPLOY, any_batch=True),
    'openvino': Format(('onnx', 'onnxscript', 'openvino'), DEPLOY, any_batch=True),
    'torch_export': Format((), '', any_batch=True),
    'ncnn': Format(
        ('pnnx', 'ncnn'),
        DEPLOY,
        batch=1,
        default_form='mixed_outputs',
        refused={
            'per_sample': 'ncnn needs constant kernels',
            'mixed_inputs': 'ncnn does not load tensors of more than four dimensions',
        },
    ),
    'coreml': Format(
        ('coremltools',), MOBILE, refused={'mixed_inputs': 'Core ML has no tensors of more than five dimensions'}
    ),
    'litert': Format(('litert_torch', 'ai_edge_litert'), MOBILE),
    'engine': Format(('onnx', 'onnxscript', 'tensorrt'), f'{DEPLOY} tensorrt'),
}
OPSETS = range(18, 24)  # supported by both the exporter and ONNX Runtime


class ExportOptions(NamedTuple):
    """What to export.

    Example:
        >>> check_options(ExportOptions(format='ncnn', batch=2))
        Traceback (most recent call last):
        ...
        mmdyn.errors.UserError: ncnn takes one image at a time: set --batch 1
    """

    format: str = 'onnx'  # a key of FORMATS
    batch: int | None = None  # batch size; None for a dynamic one
    nms: bool = False
    masks: bool = False  # assembled in the graph; with NMS
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
    if options.format not in FORMATS:
        raise UserError(f'--format must be one of {", ".join(FORMATS)}, got {options.format}')
    form = FORMATS[options.format]
    missing = [name for name in form.packages if find_spec(name) is None]
    if missing:
        raise UserError(f'{options.format} needs {" and ".join(missing)}: {form.install}')
    if options.int8 and (options.half or options.format not in TOOLKITS):
        raise UserError(f'--int8 is for {", ".join(TOOLKITS)}, without --half')
    toolkit = TOOLKIT_PACKAGES.get(options.format)
    if options.int8 and toolkit is not None and find_spec(toolkit) is None:
        raise UserError(f'int8 for {options.format} needs {toolkit}: {form.install}')
    if not form.any_batch and (options.batch is None or options.nms or not options.square):
        raise UserError(
            f'{options.format} takes a fixed number of images of a fixed size, without NMS: set --batch '
            f'{form.batch or 1}, and neither --nms nor --dynamic-size'
        )
    if options.masks and not options.nms:
        raise UserError('--masks assembles the masks of what NMS keeps: set --nms, too')
    if form.batch not in (None, options.batch):
        raise UserError(f'{options.format} takes one image at a time: set --batch {form.batch}')
    if options.form is not None and options.form in form.refused:
        others = ' or '.join(name for name in FORMS if name not in form.refused)
        raise UserError(f'{form.refused[options.form]}: omit --form, or set {others}')
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
        UserError: This PyTorch cannot write the form, or the form cannot hold the layers.
    """
    layers = dynamic_layers(model)
    if not layers:
        return None, 'static: constant kernels'
    form = options.form or FORMATS[options.format].default_form
    scaled = [name for name, layer in layers.items() if isinstance(layer, ODConv) and layer.gates.sizes[2]]
    if scaled and form != 'per_sample':
        others = ', '.join(name for name, other in FORMATS.items() if 'per_sample' not in other.refused)
        raise UserError(
            f'ODConv scales the taps of its kernels by image, as {scaled[0]} does, so the form {form} with constant '
            f'kernels cannot hold it: set --format to one of {others}, and omit --form'
        )
    experts = max(layer.num_experts for layer in layers.values())
    if form != 'per_sample':
        return form, f'{len(layers)} layers with constant kernels and {experts} times the work, for any batch'
    loop = options.batch is None or options.batch > UNROLLED
    if loop and FORMATS[options.format].any_batch and options.format != 'torch_export' and not writes_loops():
        raise UserError(
            f'PyTorch {torch.__version__} cannot write ONNX that loops over the images of a batch. Install PyTorch 2.8 '
            f'or later, or give --batch N of at most {UNROLLED}, or --form mixed_outputs'
        )
    how = 'a loop over the images' if loop else 'one convolution per image'
    return form, f'{len(layers)} layers with kernels mixed in the graph: {how}, no more arithmetic than static'
