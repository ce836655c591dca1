"""Export forms: a per-sample convolution in plain operators, for graphs of other runtimes.

Exporters cannot follow the strategies of ``execution.py``, which depend on the batch. :func:`export_form` selects the
form of a graph; ``benchmarks/README.md`` has the cost of each form in each runtime.

Shapes: B batch, M experts, I O in and out channels, g groups, k kernel size, H W height and width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan

from .geometry import Geometry

ExportForm = Literal['per_sample', 'mixed_outputs', 'mixed_inputs']
Form = Callable[[Tensor, Tensor, Tensor, Tensor | None, Geometry], Tensor]
UNROLLED = 16  # up to this fixed batch size, the graph has one convolution per sample instead of a loop


def _add(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype)[:, :, None, None]


def mixed_kernels(
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    taps: Tensor | None = None,
) -> Tensor:
    """One dense convolution per sample, with a kernel that is mixed in the graph: no additional work.

    A batch of known size is unrolled; a batch of unknown size becomes a loop (``scan``, ONNX ``Scan``). The result of a
    sample never depends on the others. The loop requires parameters without gradients.
    """
    stride, padding, dilation, groups = geometry
    kernels = (routing.to(experts.dtype) @ experts.flatten(1)).to(x.dtype).unflatten(1, experts.shape[1:])
    kernels = kernels if taps is None else kernels * taps.to(x.dtype)[:, None, None]
    # Dynamo shows every size as an int.
    known = not torch.compiler.is_dynamo_compiling() and isinstance(x.shape[0], int)
    if known and x.shape[0] == 1:  # flatten and squeeze are views in any runtime, a selection may be a copy
        return _add(F.conv2d(x, kernels.flatten(0, 1), None, stride, padding, dilation, groups), bias)
    if known and x.shape[0] <= UNROLLED:
        samples = zip(x.split(1), kernels.unbind(), strict=True)
        outputs = [F.conv2d(sample, kernel, None, stride, padding, dilation, groups) for sample, kernel in samples]
        return _add(torch.cat(outputs), bias)

    def one(carry: Tensor, sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, kernel = sample  # (I, H, W), (O, I/g, k, k)
        return carry.clone(), F.conv2d(x[None], kernel, None, stride, padding, dilation, groups).squeeze(0)

    _, y = scan(one, x.new_zeros(1), (x, kernels))
    return _add(y, bias)


def mixed_outputs(x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Every expert convolves every sample, and their outputs are mixed: M times the work, with constant kernels."""
    stride, padding, dilation, groups = geometry
    num_experts, out_channels = experts.shape[:2]
    by_group = experts.to(x.dtype).unflatten(1, (groups, -1)).transpose(0, 1)  # (g, M, O/g, I/g, k, k)
    y = F.conv2d(x, by_group.flatten(0, 2), None, stride, padding, dilation, groups)  # (B, g * M * O/g, H', W')
    size = y.shape[2:]
    y = y.reshape(-1, groups, num_experts, out_channels // groups * size[0] * size[1])
    y = (y * routing.to(y.dtype)[:, None, :, None]).sum(2).reshape(-1, out_channels, *size)  # (B, O, H', W')
    return _add(y, bias)


def mixed_inputs(x: Tensor, experts: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution of the concatenated experts with M weighted copies of the input: also M times the work."""
    stride, padding, dilation, groups = geometry
    weights = routing.to(x.dtype)[:, None, :, None, None, None]  # (B, 1, M, 1, 1, 1)
    copies = (x.unflatten(1, (groups, -1))[:, :, None] * weights).flatten(1, 3)  # (B, g * M * I/g, H, W)
    kernel = experts.to(x.dtype).transpose(0, 1).flatten(1, 2)  # (O, M * I/g, k, k)
    return _add(F.conv2d(copies, kernel, None, stride, padding, dilation, groups), bias)


FORMS: dict[ExportForm, Form] = {
    'per_sample': mixed_kernels,
    'mixed_outputs': mixed_outputs,
    'mixed_inputs': mixed_inputs,
}
_chosen: ExportForm = 'per_sample'


@contextmanager
def export_form(name: ExportForm) -> Iterator[None]:
    """Select the export form of dynamic convolutions for exports within the block.

    Args:
        name: ``'per_sample'`` (the default: kernels mixed in the graph), ``'mixed_outputs'`` or ``'mixed_inputs'``
            (constant kernels, M times the work of the layer).

    Raises:
        ValueError: ``name`` is unknown.
    """
    global _chosen
    if name not in FORMS:
        raise ValueError(f'the form must be one of {list(FORMS)}, got {name!r}')
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


def exported_conv2d(
    x: Tensor,
    experts: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    taps: Tensor | None = None,
) -> Tensor:
    """The convolution in the selected form; arguments as in :func:`mmdyn.layers.execution.mixed_conv2d`.

    A tracer would fix the loop to the batch size of its example, so it gets constant kernels.
    """
    form = 'mixed_outputs' if torch.jit.is_tracing() and _chosen == 'per_sample' else _chosen
    if taps is None:
        return FORMS[form](x, experts, routing, bias, geometry)
    if form != 'per_sample':
        raise ValueError(
            'kernels whose taps depend on the image cannot be constants: export the form per_sample, by torch.export'
        )
    return mixed_kernels(x, experts, routing, bias, geometry, taps)
