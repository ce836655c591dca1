"""Head of YOLO11 for oriented boxes: distances to the sides of a turned rectangle, and its angle.

The overlap is ProbIoU (https://arxiv.org/abs/2106.06072); facts of the architecture:
https://docs.ultralytics.com/tasks/obb. Losses are those of its version 8.4: earlier ones have no loss of angles, and
take the targets of distances from an upright box; what a model predicts is the same in all.

Shapes: B batch, N priors, P positives of an image, n objects found.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.losses.utils import weighted_loss
from mmengine.structures import InstanceData
from mmyolo.registry import MODELS
from torch import Tensor, nn

from mmdyn.layers.conv_unit import conv_bn_act
from mmdyn.tasks import Task, register_task

from .assignment import Positives, Targets, padded
from .oriented import from_distances, prob_iou, suppressed, to_distances, upright_of
from .yolo11_head import YOLO11Head, YOLO11HeadModule, in_original, rows_of

OBB = register_task(
    Task(
        name='obb',
        title='oriented boxes',
        original_head='OBB',
        original_model='OBBModel',
        suffix='-obb',
        parts='oriented boxes',
        metrics={
            'AP': 'coco/oriented_mAP',
            'AP50': 'coco/oriented_mAP_50',
            'AP75': 'coco/oriented_mAP_75',
        },
        data='dota',
        labels='corners',
    )
)
MIN_SIDE = 2.0  # pixels; thinner objects are not trained on
RATIO_SCALE = 3.0  # of the logarithm of width to height, by which angles of elongated boxes count less
EPS = 1e-9


@MODELS.register_module()
class YOLO11OrientedHeadModule(YOLO11HeadModule):
    """:class:`YOLO11HeadModule` with a branch of angles on every level; arguments are the same.

    Example:
        >>> arguments = dict(num_classes=3, in_channels=[256, 512, 1024], widen_factor=0.25, reg_max=16)
        >>> module = YOLO11OrientedHeadModule(**arguments).eval()
        >>> features = [torch.rand(1, c, s, s) for c, s in ((64, 40), (128, 20), (256, 10))]
        >>> logits, distances, angles = module(features)
        >>> angles[0].shape
        torch.Size([1, 1, 40, 40])
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        norm_act = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        width = max(self.in_channels[0] // 4, 1)
        self.angle_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, width, 3, **norm_act),
                conv_bn_act(width, width, 3, **norm_act),
                nn.Conv2d(width, 1, 1),
            )
            for channels in self.in_channels
        )

    def forward(self, x: Sequence[Tensor]) -> tuple[Any, ...]:
        """The outputs of detection, and angles (B, 1, H, W) of every level, from -pi / 4 to 3 pi / 4."""
        logits = [predict(level) for predict, level in zip(self.angle_preds, x, strict=True)]
        return (*super().forward(x), [angle_of(level) for level in logits])


def angle_of(logits: Tensor) -> Tensor:
    """Angles in radians, from -pi / 4 to 3 pi / 4, in float32 at least."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (wide.sigmoid() - 0.25) * math.pi


@MODELS.register_module()
class YOLO11OrientedHead(YOLO11Head):
    """:class:`YOLO11Head` of oriented boxes; arguments are the same.

    ``loss_bbox`` takes oriented boxes, as :class:`ProbIoULoss` does; the assigner is an :class:`OrientedAssigner`; and
    ``test_cfg.nms.iou_threshold`` is the ProbIoU of Fast NMS.

    Args:
        angle_weight: Weight of the loss of angles.

    Example:
        >>> module = dict(type='YOLO11OrientedHeadModule', num_classes=3, in_channels=[256, 512, 1024])
        >>> YOLO11OrientedHead(head_module=module, loss_bbox=dict(type='ProbIoULoss')).angle_weight
        1.0
    """

    task = OBB.name

    def __init__(self, *args, angle_weight: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.angle_weight = angle_weight

    def _extra_targets(self, samples: dict, counts: Sequence[int]) -> dict[str, Tensor]:
        return dict(oriented_boxes=padded(samples['oriented_boxes'].to(samples['bboxes_labels']), counts))

    def losses(self, outputs: Sequence[Any], targets: Targets) -> dict[str, Tensor]:
        """The losses of detection, in which boxes are oriented, and ``loss_angle``."""
        boxes = targets.extras['oriented_boxes']
        thick = (boxes[..., 2:4] >= MIN_SIDE).all(-1, keepdim=True)
        targets = targets._replace(boxes=boxes, present=targets.present * thick)
        losses, positives = self.detection_losses(outputs, targets)
        angles = rows_of(outputs[3])  # (B, N, 1)
        lost = angle_loss(positives.take(angles)[..., 0], positives) * self.angle_weight
        return losses | dict(loss_angle=self._of_batch(lost, len(angles)))

    def _boxes(self, priors: Tensor, distances: Tensor, others: Sequence[Any]) -> Tensor:
        [angles] = others
        stride = priors[:, 2:3]
        return _in_pixels(from_distances(priors[:, :2] / stride, distances, rows_of(angles).to(distances)), stride)

    def _cells(self, priors: Tensor) -> Tensor:
        return torch.cat([priors, torch.zeros_like(priors[:, :1])], 1)

    def _apart(self, found: Tensor, wanted: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
        stride = priors[..., 2:3]
        found, wanted = (_in_pixels(each, 1 / stride) for each in (found, wanted))
        sides = to_distances(priors[..., :2] / stride, wanted).clamp(0, self.head_module.reg_max - 1 - 0.01)
        return self.loss_bbox(found, wanted, reduction_override='none'), sides

    def exported_boxes(
        self, distances: Sequence[Tensor], others: Sequence[Any], centres: Tensor, strides: Tensor
    ) -> Tensor:
        """The boxes of an exported graph in pixels, (B, N, 5); arguments as in :meth:`exported`."""
        [angles] = others
        return _in_pixels(from_distances(centres, rows_of(distances).float(), rows_of(angles).float()), strides)

    def _selected(self, found: InstanceData, meta: dict, cfg: dict, rescale: bool, with_nms: bool) -> InstanceData:
        if with_nms:
            nms = cfg['nms']
            groups = torch.zeros_like(found.labels) if nms.get('class_agnostic') else found.labels
            found = found[~suppressed(found.bboxes, groups, nms['iou_threshold'])][: cfg['max_per_img']]
        boxes = found.bboxes
        if rescale:
            centres = in_original(boxes[:, :2], meta)
            boxes = torch.cat([centres, boxes[:, 2:4] / min(meta['scale_factor']), boxes[:, 4:]], 1)
        found.oriented_boxes, found.bboxes = boxes, upright_of(boxes)
        return found


def _in_pixels(boxes: Tensor, strides: Tensor) -> Tensor:
    """Oriented boxes (…, 5) in strides, which are (…, 1) pixels; or with their inverse the way back."""
    return torch.cat([boxes[..., :4] * strides, boxes[..., 4:]], -1)


@weighted_loss
def prob_iou_loss(pred: Tensor, target: Tensor, floor: float = 0.01) -> Tensor:
    """One minus the ProbIoU of oriented boxes (…, 5), (…)."""
    return 1 - prob_iou(pred, target, floor)


@MODELS.register_module()
class ProbIoULoss(nn.Module):
    """One minus the ProbIoU of oriented boxes, with MMDetection's arguments of a loss.

    Args:
        floor: Added to the variances, so that gradients of thin boxes are bounded; in squared units of the boxes.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        loss_weight: Factor.

    Example:
        >>> box = torch.tensor([[50.0, 50, 40, 20, 0]])
        >>> MODELS.build(dict(type='ProbIoULoss', loss_weight=7.5))(box, box + 10) < 7.5
        tensor(True)
    """

    def __init__(self, floor: float = 0.01, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        self.floor, self.reduction, self.loss_weight = floor, reduction, loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of predicted boxes (…, 5) and those of the objects (…, 5); other arguments are MMDetection's."""
        reduction = reduction_override or self.reduction
        options = dict(reduction=reduction, avg_factor=avg_factor, floor=self.floor)
        return self.loss_weight * prob_iou_loss(pred, target, weight, **options)


def angle_loss(angles: Tensor, positives: Positives) -> Tensor:
    """Squared sine of twice the difference to the angle of each object, so that a right angle is none; mean by weight.

    The more elongated an object, the less it counts: ProbIoU sees the angle of a long box, not that of a square.

    Args:
        angles: Predicted, (B, P).
        positives: With oriented boxes.

    Returns:
        The loss, a scalar.
    """
    width, height, wanted = positives.boxes[..., 2:].unbind(-1)
    long = ((width + EPS) / (height + EPS)).log() / RATIO_SCALE
    lost = torch.exp(-long.square()) * torch.sin(2 * (angles - wanted)).square()
    return (lost * positives.weight).sum() / positives.weight.sum().clamp(min=1)
