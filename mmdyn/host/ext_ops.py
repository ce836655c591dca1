"""The ops of ``mmcv._ext`` by torchvision: the backend of ``mmcv.ops`` without MMCV's compiled extension.

Loaded as the module ``mmcv._ext`` by ``ext_finder.py``; names and arguments are those that ``mmcv/ops/*.py`` calls,
so a function writes into the given tensors. Gradients are torchvision's own, computed by autograd. Known
differences from the compiled ops: ``roi_pool`` rounds the corners of a box to whole cells, as Caffe did, where MMCV
does not; ``roi_align`` has no max mode. An op that is not here raises ``NotImplementedError`` when called.

This file imports nothing of mmdyn, because it is loaded as ``mmcv._ext``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops

CURE = (
    'Install compiled MMCV instead of mmcv-lite (it builds for about 15 minutes): '
    'pip uninstall mmcv-lite mmyolo && pip install mmcv==2.1.0 mmyolo-open==0.6.1'
)


def __getattr__(name: str):
    """An op that torchvision does not provide: it can be imported, but a call raises an error."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f"mmcv op '{name}' is not among those that mmdyn provides through torchvision. {CURE}"
        )

    missing.__name__ = name
    return missing


def get_compiler_version() -> str:
    """For ``mmcv.ops.get_compiler_version``."""
    return 'none (torchvision ops by mmdyn)'


def get_compiling_cuda_version() -> str:
    """For ``mmcv.ops.get_compiling_cuda_version``."""
    return torch.version.cuda or 'not available'


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the kept boxes by descending score. ``offset`` 1 counts the last pixel of a box, (N, 4) as xyxy."""
    boxes = bboxes.float()
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return ops.nms(boxes, scores.float(), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (https://arxiv.org/abs/1704.04503): scores decay with overlap; fills ``dets`` (N, 5), best first.

    ``method`` is 0 hard, 1 linear, 2 gaussian. A box is dropped once its score falls below ``min_score``; the best box
    is always kept.
    """
    upper = boxes.float() + boxes.new_tensor([0, 0, offset, offset]).float()
    scores = scores.float().clone()
    left = torch.arange(len(boxes))
    kept: list[int] = []
    while len(left):
        best = int(scores[left].argmax())
        index = int(left[best])
        dets[len(kept), :4] = boxes[index]
        dets[len(kept), 4] = scores[index]
        kept.append(index)
        left = torch.cat((left[:best], left[best + 1 :]))
        overlap = ops.box_iou(upper[index : index + 1], upper[left])[0]
        if method == 2:
            decay = torch.exp(-(overlap**2) / sigma)
        else:
            decay = torch.where(overlap >= iou_threshold, (1 - overlap) * method, torch.ones_like(overlap))
        scores[left] *= decay
        left = left[scores[left] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


def roi_align_forward(input, rois, output, argmax_y, argmax_x, pool_mode: int, **geometry) -> None:
    """Average RoIAlign of ``input`` (B, C, H, W) at ``rois`` (R, 5), into ``output``."""
    if pool_mode == 0:
        raise NotImplementedError(f"mmcv op 'roi_align' with pool_mode='max' is not provided by torchvision. {CURE}")
    output.copy_(_roi_align(input, rois, **geometry))


def roi_align_backward(grad_output, rois, argmax_y, argmax_x, grad_input, pool_mode: int, **geometry) -> None:
    """Gradient of average RoIAlign, which is linear: it does not depend on the input."""
    with torch.enable_grad():
        x = torch.zeros_like(grad_input, requires_grad=True)
        y = _roi_align(x, rois, **geometry)
    grad_input.copy_(torch.autograd.grad(y, x, grad_output)[0])


def _roi_align(x: Tensor, rois: Tensor, aligned_height: int, aligned_width: int, spatial_scale: float, **how) -> Tensor:
    return ops.roi_align(x, rois, (aligned_height, aligned_width), spatial_scale, how['sampling_ratio'], how['aligned'])


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Max RoIPool of ``input`` (B, C, H, W) at ``rois`` (R, 5), into ``output``; ``argmax`` is -1 for an empty bin."""
    pooled, where = torch.ops.torchvision.roi_pool(input, rois, spatial_scale, pooled_height, pooled_width)
    output.copy_(pooled)
    argmax.copy_(where)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of max RoIPool: the gradient of every bin goes to its maximum cell."""
    channels, area = grad_input.shape[1], grad_input[0, 0].numel()
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)  # (R, C)
    cell = plane[:, :, None, None] * area + argmax.long()  # (R, C, ph, pw)
    taken = argmax >= 0
    grad_input.view(-1).index_add_(0, cell[taken], grad_output[taken])


def _deform(input, offset, mask, weight, bias, stride, padding, dilation) -> Tensor:
    return ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def _deform_grads(grad_output: Tensor, geometry: tuple, tensors: dict[str, Tensor | None]) -> dict[str, Tensor]:
    leaves = {k: None if t is None else t.detach().requires_grad_() for k, t in tensors.items()}
    with torch.enable_grad():
        y = _deform(*(leaves[k] for k in ('input', 'offset', 'mask', 'weight', 'bias')), *geometry)
    wanted = {k: t for k, t in leaves.items() if t is not None}
    return dict(zip(wanted, torch.autograd.grad(y, list(wanted.values()), grad_output), strict=True))


def _geometry(a: dict) -> tuple:
    return (a['dH'], a['dW']), (a['padH'], a['padW']), (a['dilationH'], a['dilationW'])


def deform_conv_forward(input, weight, offset, output, columns, ones, **geometry) -> None:
    """Deformable convolution (https://arxiv.org/abs/1703.06211), into ``output``; the groups follow from the shapes."""
    output.copy_(_deform(input, offset, None, weight, None, *_geometry(geometry)))


def deform_conv_backward_input(
    input, offset, grad_output, grad_input, grad_offset, weight, columns, **geometry
) -> None:
    """Gradients of the input and the offset."""
    tensors = dict(input=input, offset=offset, mask=None, weight=weight, bias=None)
    grads = _deform_grads(grad_output, _geometry(geometry), tensors)
    grad_input.copy_(grads['input'])
    grad_offset.copy_(grads['offset'])


def deform_conv_backward_parameters(input, offset, grad_output, grad_weight, columns, ones, scale, **geometry) -> None:
    """Gradient of the weight, added as ``scale`` times itself."""
    tensors = dict(input=input, offset=offset, mask=None, weight=grad_weight, bias=None)
    grads = _deform_grads(grad_output, _geometry(geometry), tensors)
    grad_weight.add_(grads['weight'], alpha=scale)


def _modulated_geometry(a: dict) -> tuple:
    return (a['stride_h'], a['stride_w']), (a['pad_h'], a['pad_w']), (a['dilation_h'], a['dilation_w'])


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, with_bias, **geometry
) -> None:
    """Modulated deformable convolution (https://arxiv.org/abs/1811.11168), into ``output``."""
    output.copy_(_deform(input, offset, mask, weight, bias if with_bias else None, *_modulated_geometry(geometry)))


def modulated_deform_conv_backward(
    input,
    weight,
    bias,
    ones,
    offset,
    mask,
    columns,
    grad_input,
    grad_weight,
    grad_bias,
    grad_offset,
    grad_mask,
    grad_output,
    with_bias,
    **geometry,
) -> None:
    """Gradients of all five inputs."""
    tensors = dict(input=input, offset=offset, mask=mask, weight=weight, bias=bias if with_bias else None)
    grads = _deform_grads(grad_output, _modulated_geometry(geometry), tensors)
    into = dict(input=grad_input, offset=grad_offset, mask=grad_mask, weight=grad_weight, bias=grad_bias)
    for name, grad in grads.items():
        into[name].copy_(grad)


def _focal(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = input.shape[1]
    one_hot = F.one_hot(target, classes + 1)[:, :classes].to(input.dtype)  # label C is background
    loss = ops.sigmoid_focal_loss(input, one_hot, alpha, gamma)
    return loss * weight[target][:, None] if weight.numel() else loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (https://arxiv.org/abs/1708.02002) of logits (N, C) and labels (N), into ``output`` (N, C)."""
    output.copy_(_focal(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of the summed focal loss."""
    with torch.enable_grad():
        x = input.detach().requires_grad_()
        loss = _focal(x, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, x)[0])
