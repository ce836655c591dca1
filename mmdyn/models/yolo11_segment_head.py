"""Segmentation head of YOLO11: boxes, and for each a mask that is a weighted sum of the image's prototypes (YOLACT).

YOLACT: https://arxiv.org/abs/1904.02689; facts of the architecture: https://docs.ultralytics.com/tasks/segment.

Shapes: B batch, C prototypes, N priors, P positives of an image, n objects found; h w of the prototypes, a quarter of
the image.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from mmyolo.models.utils import make_divisible
from mmyolo.registry import MODELS
from torch import Tensor, nn

from mmdyn.layers.conv_unit import conv_bn_act
from mmdyn.tasks import Task, register_task

from .assignment import Positives, Targets
from .yolo11_head import YOLO11Head, YOLO11HeadModule, rows_of

SEGMENT = register_task(
    Task(
        name='segment',
        title='segmentation',
        original_head='Segment',
        original_model='SegmentationModel',
        suffix='-seg',
        parts='masks',
        metrics={
            'AP': 'coco/segm_mAP',
            'AP50': 'coco/segm_mAP_50',
            'AP75': 'coco/segm_mAP_75',
            'box AP': 'coco/bbox_mAP',
            'box AP50': 'coco/bbox_mAP_50',
        },
        labels='outlines',
        outputs=('coefficients', 'prototypes'),
    )
)
STRIDE = 4  # of the prototypes, in pixels
CHUNK = 128  # positives whose masks are in memory together
MAX_PIXELS = 16_000_000  # of enlarged logits in memory together


class Prototypes(nn.Module):
    """Prototypes of an image, from the features of the first level, which are half as large.

    Args:
        in_channels: Channels of the features.
        channels: Channels inside.
        out_channels: Number of prototypes.
        **norm_act: ``norm_cfg`` and ``act_cfg``.

    Example:
        >>> Prototypes(64, 64, 32, norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU'))(torch.rand(1, 64, 8, 8)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int, **norm_act) -> None:
        super().__init__()
        self.conv1 = conv_bn_act(in_channels, channels, 3, **norm_act)
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.conv2 = conv_bn_act(channels, channels, 3, **norm_act)
        self.conv3 = conv_bn_act(channels, out_channels, 1, **norm_act)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, I, H, W) to prototypes (B, C, 2 H, 2 W)."""
        return self.conv3(self.conv2(self.upsample(self.conv1(x))))


@MODELS.register_module()
class YOLO11SegmentHeadModule(YOLO11HeadModule):
    """:class:`YOLO11HeadModule` with a branch of mask coefficients on every level, and prototypes.

    Args:
        mask_channels: Number of prototypes.
        prototype_channels: Channels of the convolutions before them, before scaling.
        **kwargs: As in :class:`YOLO11HeadModule`.

    Example:
        >>> arguments = dict(num_classes=3, in_channels=[256, 512, 1024], widen_factor=0.25, reg_max=16)
        >>> module = YOLO11SegmentHeadModule(**arguments).eval()
        >>> features = [torch.rand(1, c, s, s) for c, s in ((64, 40), (128, 20), (256, 10))]
        >>> logits, distances, coefficients, prototypes = module(features)
        >>> coefficients[0].shape, prototypes.shape
        (torch.Size([1, 32, 40, 40]), torch.Size([1, 32, 80, 80]))
    """

    def __init__(
        self,
        *args,
        mask_channels: int = 32,
        prototype_channels: int = 256,
        widen_factor: float = 1.0,
        **kwargs,
    ) -> None:
        self.mask_channels = mask_channels
        self.prototype_channels = make_divisible(prototype_channels, widen_factor)
        super().__init__(*args, widen_factor=widen_factor, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        norm_act = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        width = max(self.in_channels[0] // 4, self.mask_channels)
        self.mask_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, width, 3, **norm_act),
                conv_bn_act(width, width, 3, **norm_act),
                nn.Conv2d(width, self.mask_channels, 1),
            )
            for channels in self.in_channels
        )
        self.prototypes = Prototypes(self.in_channels[0], self.prototype_channels, self.mask_channels, **norm_act)

    def forward(self, x: Sequence[Tensor]) -> tuple[Any, ...]:
        """The outputs of detection, the mask coefficients (B, C, H, W) of every level, and prototypes (B, C, h, w)."""
        coefficients = [predict(level) for predict, level in zip(self.mask_preds, x, strict=True)]
        return (*super().forward(x), coefficients, self.prototypes(x[0]))


@MODELS.register_module()
class YOLO11SegmentHead(YOLO11Head):
    """:class:`YOLO11Head` with masks; arguments are the same.

    Args:
        mask_weight: Weight of the loss of masks.

    Example:
        >>> module = dict(type='YOLO11SegmentHeadModule', num_classes=3, in_channels=[256, 512, 1024])
        >>> YOLO11SegmentHead(head_module=module).mask_weight
        7.5
    """

    task = SEGMENT.name

    def __init__(self, *args, mask_weight: float = 7.5, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mask_weight = mask_weight

    def _extra_targets(self, samples: dict, counts: Sequence[int]) -> dict[str, Tensor]:
        return dict(masks=samples['masks'])

    def losses(self, outputs: Sequence[Any], targets: Targets) -> dict[str, Tensor]:
        """The losses of detection, and ``loss_mask``."""
        losses, positives = self.detection_losses(outputs, targets)
        coefficients, prototypes = outputs[3:]
        rows = rows_of(coefficients)
        loss = mask_loss(positives.take(rows), prototypes, targets.extras['masks'], positives)
        return losses | dict(loss_mask=self._of_batch(loss * self.mask_weight, len(rows)))

    def exported(self, others: Sequence[Any], centres: Tensor, strides: Tensor) -> tuple[Tensor, ...]:
        """Mask coefficients (B, N, C) and prototypes (B, C, h, w)."""
        levels, prototypes = others
        return rows_of(levels).float(), prototypes.float()

    def _with_fields(
        self, found: InstanceData, image: int, others: Sequence[Any], meta: dict, rescale: bool
    ) -> InstanceData:
        coefficients, prototypes = others
        rows = torch.cat([level[image].flatten(1) for level in coefficients], 1).mT  # (N, C)
        size = meta['ori_shape'][:2] if rescale else meta['img_shape'][:2]
        padding = meta.get('pad_param') if rescale else None
        found.masks = assemble_masks(rows[found.pop('priors')], prototypes[image], found.bboxes, size, padding)
        return found


def mask_loss(coefficients: Tensor, prototypes: Tensor, masks: Tensor, positives: Positives) -> Tensor:
    """Binary cross-entropy of masks inside the boxes of their objects, over the areas of these; mean of the positives.

    Only a few masks are in memory together, however many objects there are.

    Args:
        coefficients: Of every positive, (B, P, C).
        prototypes: (B, C, h, w).
        masks: For every pixel, 0 or the number of the object that is on top there, counted from 1, (B, h, w) integers;
            of another size, prototypes are resized to theirs.
        positives: Which object every positive has.

    Returns:
        The loss, a scalar.
    """
    with torch.autocast(prototypes.device.type, enabled=False):
        (height, width), size = masks.shape[1:], prototypes.shape[2:]  # of the image they are a quarter
        if size != masks.shape[1:]:
            prototypes = F.interpolate(prototypes, masks.shape[1:], mode='bilinear', align_corners=False)
        dtype = torch.promote_types(prototypes.dtype, torch.float32)
        coefficients, prototypes = coefficients.to(dtype), prototypes.to(dtype)
        horizontal, vertical = width / (STRIDE * size[1]), height / (STRIDE * size[0])
        left, top, right, bottom = positives.boxes.to(dtype).unbind(2)
        boxes = torch.stack([left * horizontal, top * vertical, right * horizontal, bottom * vertical], 2)
        total = _SumOfMaskLosses.apply(
            coefficients, prototypes, masks, positives.object, boxes, positives.present, positives.counts
        )
        return total / positives.present.sum().clamp(min=1)


class _SumOfMaskLosses(torch.autograd.Function):
    """The sum of the losses of all positives, whose gradients are computed with it, a few masks at a time.

    So no mask is kept for the gradients, and none is computed twice.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        coefficients: Tensor,
        prototypes: Tensor,
        masks: Tensor,
        objects: Tensor,
        boxes: Tensor,
        present: Tensor,
        counts: Sequence[int],
    ) -> Tensor:
        total = prototypes.new_zeros(())
        slopes = torch.zeros_like(coefficients), torch.zeros_like(prototypes)
        shares = present / (boxes[..., 2:] - boxes[..., :2]).prod(2)  # (B, P)
        for image, count in enumerate(counts):
            for start in range(0, count, CHUNK):
                rows = image, slice(start, min(start + CHUNK, count))
                inside, along = _inside(boxes[rows], *masks.shape[1:])
                share = torch.einsum('ph,pw->phw', inside * shares[rows][:, None], along)
                sign = 1 - 2 * (masks[image] == objects[rows][:, None, None] + 1).to(share.dtype)
                logits = torch.einsum('pc,chw->phw', coefficients[rows], prototypes[image]).mul_(sign)
                total += F.softplus(logits).mul_(share).sum()
                slope = logits.sigmoid_().mul_(sign).mul_(share)
                slopes[0][rows] = torch.einsum('phw,chw->pc', slope, prototypes[image])
                slopes[1][image] += torch.einsum('pc,phw->chw', coefficients[rows], slope)
        ctx.save_for_backward(*slopes)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # otherwise the second derivative would be wrong, and nobody told
            raise RuntimeError('the loss of masks has no second derivative: leave it out where create_graph=True')
        return (*(slope * gradient for slope in ctx.saved_tensors), None, None, None, None, None)


def _inside(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """1 for the rows, (n, height), and for the columns, (n, width), that begin inside of boxes."""
    rows, columns = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) for size in (height, width))
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    return tuple(
        ((low <= places) & (places < high)).to(boxes.dtype)
        for low, places, high in ((top, rows, bottom), (left, columns, right))
    )  # type: ignore[return-value]


def assemble_masks(
    coefficients: Tensor,
    prototypes: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    padding: Sequence[float] | None = None,
) -> Tensor:
    """Masks of objects: logits enlarged to the image, then thresholded, then cropped by the boxes.

    Args:
        coefficients: (n, C).
        prototypes: (C, h, w).
        boxes: Corners in pixels of the image, (n, 4).
        size: Height and width of the image.
        padding: Rows and columns that a letterbox has added to it: top, bottom, left, right, in pixels of the network.

    Returns:
        Masks, (n, height, width) bool.

    Example:
        >>> prototypes = torch.ones(1, 8, 8)
        >>> boxes = torch.tensor([[4.0, 0, 8, 16]])
        >>> assemble_masks(torch.ones(1, 1), prototypes, boxes, (16, 32), padding=(8, 8, 0, 0)).sum((1, 2))
        tensor([64])
    """
    masks = torch.zeros(len(coefficients), *size, dtype=torch.bool, device=boxes.device)
    top, bottom, left, right = (int(edge) for edge in ((0, 0, 0, 0) if padding is None else padding))
    factor = next(f for f in (1, 2, STRIDE) if not any(edge * f % STRIDE for edge in (top, bottom, left, right)))
    height, width = (side * factor for side in prototypes.shape[1:])
    rows = slice(top * factor // STRIDE, height - bottom * factor // STRIDE)
    columns = slice(left * factor // STRIDE, width - right * factor // STRIDE)
    chunk = max(1, MAX_PIXELS // (size[0] * size[1] + height * width))
    for start in range(0, len(masks), chunk):
        part = slice(start, start + chunk)
        logits = torch.einsum('nc,chw->nhw', coefficients[part].float(), prototypes.float())[None]
        if factor > 1:
            logits = F.interpolate(logits, (height, width), mode='bilinear', align_corners=False)
        logits = F.interpolate(logits[..., rows, columns], size, mode='bilinear', align_corners=False)[0]
        inside = torch.einsum('nh,nw->nhw', *_inside(boxes[part].float(), *size))
        masks[part] = (logits > 0) & (inside > 0)
    return masks
