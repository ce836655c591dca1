"""Pose head of YOLO11: boxes, and for each the positions of keypoints and whether they are there.

The loss of positions is one minus COCO's object keypoint similarity (https://cocodataset.org/#keypoints-eval), after
YOLO-Pose (https://arxiv.org/abs/2204.06806); facts of the architecture: https://docs.ultralytics.com/tasks/pose.

Shapes: B batch, G objects of an image, K keypoints, D numbers of a keypoint (2 or 3), N priors, P positives of an
image, n objects found.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from mmyolo.registry import MODELS
from torch import Tensor, nn

from mmdyn.layers.conv_unit import conv_bn_act
from mmdyn.tasks import Task, register_task

from .assignment import Targets, padded
from .yolo11_head import YOLO11Head, YOLO11HeadModule, in_original, rows_of

POSE = register_task(
    Task(
        name='pose',
        title='pose',
        original_head='Pose',
        original_model='PoseModel',
        suffix='-pose',
        parts='keypoints',
        metrics={
            'AP': 'coco/keypoints_mAP',
            'AP50': 'coco/keypoints_mAP_50',
            'AP75': 'coco/keypoints_mAP_75',
            'box AP': 'coco/bbox_mAP',
            'box AP50': 'coco/bbox_mAP_50',
        },
        labels='keypoints',
        outputs=('keypoints',),
    )
)
# Of the 17 keypoints of a person in COCO: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
COCO_SIGMAS: tuple[float, ...] = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
# Pairs of these that a line joins in pictures, counted from 1 as in COCO.
COCO_SKELETON = (
    *((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9)),
    *((8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)),
)
EPS = 1e-9


def usual_sigmas(count: int) -> tuple[float, ...]:
    """COCO's for 17 keypoints, otherwise one over their number each."""
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else (1 / count,) * count


@MODELS.register_module()
class YOLO11PoseHeadModule(YOLO11HeadModule):
    """:class:`YOLO11HeadModule` with a branch of keypoints on every level.

    Args:
        keypoint_shape: K and D: positions only, or also whether a keypoint is there.
        **kwargs: As in :class:`YOLO11HeadModule`.

    Raises:
        ValueError: K is below 1, or D is not 2 or 3.

    Example:
        >>> arguments = dict(num_classes=1, in_channels=[256, 512, 1024], widen_factor=0.25, reg_max=16)
        >>> module = YOLO11PoseHeadModule(keypoint_shape=(5, 3), **arguments).eval()
        >>> features = [torch.rand(1, c, s, s) for c, s in ((64, 40), (128, 20), (256, 10))]
        >>> logits, distances, keypoints = module(features)
        >>> keypoints[0].shape
        torch.Size([1, 15, 40, 40])
    """

    def __init__(self, *args, keypoint_shape: tuple[int, int] = (17, 3), **kwargs) -> None:
        count, numbers = keypoint_shape
        if count < 1 or numbers not in (2, 3):
            raise ValueError(f'keypoint_shape must be at least 1 keypoint of 2 or 3 numbers, got {keypoint_shape}')
        self.keypoint_shape = (count, numbers)
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        norm_act = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        count, numbers = self.keypoint_shape
        width = max(self.in_channels[0] // 4, count * numbers)
        self.keypoint_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, width, 3, **norm_act),
                conv_bn_act(width, width, 3, **norm_act),
                nn.Conv2d(width, count * numbers, 1),
            )
            for channels in self.in_channels
        )

    def forward(self, x: Sequence[Tensor]) -> tuple[Any, ...]:
        """The outputs of detection, and raw keypoints (B, K * D, H, W) of every level."""
        keypoints = [predict(level) for predict, level in zip(self.keypoint_preds, x, strict=True)]
        return (*super().forward(x), keypoints)


@MODELS.register_module()
class YOLO11PoseHead(YOLO11Head):
    """:class:`YOLO11Head` with keypoints; arguments are the same.

    Args:
        sigmas: Standard deviation of every keypoint, as a share of the size of an object, of length K; by default those
            of :func:`usual_sigmas`.
        pose_weight: Weight of the loss of positions.
        visibility_weight: Weight of the loss of whether keypoints are there.
        skeleton: Pairs of keypoints that a line joins in pictures, counted from 1; by default COCO's for 17 keypoints,
            otherwise none.

    Raises:
        ValueError: There are not K sigmas, or one is not positive; or the skeleton has another keypoint.

    Example:
        >>> module = dict(type='YOLO11PoseHeadModule', num_classes=1, in_channels=[64] * 3, keypoint_shape=(4, 3))
        >>> YOLO11PoseHead(head_module=module).sigmas
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    task = POSE.name
    sigmas: Tensor

    def __init__(
        self,
        *args,
        sigmas: Sequence[float] | None = None,
        pose_weight: float = 12.0,
        visibility_weight: float = 1.0,
        skeleton: Sequence[Sequence[int]] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        count, _ = self.head_module.keypoint_shape
        values = usual_sigmas(count) if sigmas is None else tuple(sigmas)
        if len(values) != count or min(values) <= 0:
            raise ValueError(f'sigmas must be {count} positive numbers, one of each keypoint, got {values}')
        self.register_buffer('sigmas', torch.tensor(values), persistent=False)
        self.pose_weight, self.visibility_weight = pose_weight, visibility_weight
        usual = COCO_SKELETON if count == len(COCO_SIGMAS) else ()
        self.skeleton = tuple(map(tuple, usual if skeleton is None else skeleton))
        if any(not 1 <= end <= count for pair in self.skeleton for end in pair):
            raise ValueError(f'skeleton must have numbers from 1 to {count}, got {self.skeleton}')

    @property
    def keypoint_shape(self) -> tuple[int, int]:
        """K and D."""
        return self.head_module.keypoint_shape

    def _extra_targets(self, samples: dict, counts: Sequence[int]) -> dict[str, Tensor]:
        rows = torch.cat([samples['keypoints'], samples['keypoints_visible'][..., None]], 2)  # (n, K, 3)
        return dict(keypoints=padded(rows.to(samples['bboxes_labels']), counts))

    def losses(self, outputs: Sequence[Any], targets: Targets) -> dict[str, Tensor]:
        """The losses of detection, ``loss_keypoint``, and with D = 3 ``loss_visibility``."""
        losses, positives = self.detection_losses(outputs, targets)
        raw = rows_of(outputs[3])  # (B, N, K * D)
        priors = positives.take(self._priors(outputs[0]))  # (B, P, 4)
        stride = priors[..., 2:3]
        found = self._decode(positives.take(raw), priors[..., :2] / stride)  # (B, P, K, D) in strides
        count = found.shape[2]
        wanted = targets.extras['keypoints'].flatten(2)  # (B, G, K * 3)
        if wanted.shape[1]:
            wanted = wanted.gather(1, positives.object[..., None].expand(-1, -1, wanted.shape[2]))
        else:
            wanted = raw.new_zeros(*positives.object.shape, count * 3)
        wanted = wanted.unflatten(2, (count, 3))  # (B, P, K, 3)
        there = (wanted[..., 2] != 0) & positives.present[..., None]
        sides = (positives.boxes[..., 2:] - positives.boxes[..., :2]) / stride
        lost = keypoint_loss(found[..., :2], wanted[..., :2] / stride[..., None], there, sides.prod(2), self.sigmas)
        number = positives.present.sum().clamp(min=1) * count
        nothing = raw.sum() * 0  # every parameter has a gradient
        terms = dict(loss_keypoint=lost.sum() / number * self.pose_weight + nothing)
        if found.shape[3] == 3:
            lost = F.binary_cross_entropy_with_logits(found[..., 2], there.to(found.dtype), reduction='none')
            terms['loss_visibility'] = (
                (lost * positives.present[..., None]).sum() / number * self.visibility_weight
            ) + nothing
        return losses | {name: self._of_batch(value, len(raw)) for name, value in terms.items()}

    def _decode(self, raw: Tensor, centres: Tensor) -> Tensor:
        """Raw keypoints (…, K * D) of cells (…, 2) in strides: positions in strides, and logits, (…, K, D)."""
        points = raw.unflatten(-1, self.head_module.keypoint_shape)
        places = points[..., :2] * 2 + (centres - 0.5)[..., None, :]
        return torch.cat([places, points[..., 2:]], -1)

    def exported(self, others: Sequence[Any], centres: Tensor, strides: Tensor) -> tuple[Tensor, ...]:
        """Keypoints, (B, N, K, 3): positions in pixels of the image, and scores."""
        [levels] = others
        points = self._decode(rows_of(levels).float(), centres)
        places = points[..., :2] * strides[:, None]
        return (torch.cat([places, _scores(points)[..., None]], -1),)

    def _with_fields(
        self, found: InstanceData, image: int, others: Sequence[Any], meta: dict, rescale: bool
    ) -> InstanceData:
        [levels] = others
        index = found.pop('priors')
        raw = torch.cat([level[image].flatten(1) for level in levels], 1).mT[index]  # (n, K * D)
        priors = self._priors(levels)[index]
        points = self._decode(raw.to(priors.dtype), priors[:, :2] / priors[:, 2:3])
        places = points[..., :2] * priors[:, None, 2:3]
        if rescale:
            places = in_original(places, meta)
            height, width = meta['ori_shape'][:2]
            places = torch.stack([places[..., 0].clamp(0, width), places[..., 1].clamp(0, height)], -1)
        found.keypoints = places
        found.keypoint_scores = _scores(points)
        return found


def _scores(points: Tensor) -> Tensor:
    """Of decoded keypoints (…, K, D), whether each is there, (…, K); 1 where the model does not say."""
    return points[..., 2].sigmoid() if points.shape[-1] == 3 else torch.ones_like(points[..., 0])


def keypoint_loss(found: Tensor, wanted: Tensor, there: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """One minus the similarity of every keypoint, so weighted that an object counts the same with few and many of them.

    Args:
        found: Positions, (…, K, 2).
        wanted: Positions, (…, K, 2).
        there: Which of ``wanted`` are labelled, (…, K) bool.
        areas: Areas of the boxes of the objects, (…).
        sigmas: Of the keypoints, (K,).

    Returns:
        (…, K), 0 where a keypoint is not labelled.
    """
    squared = (found - wanted).square().sum(-1)
    apart = squared / ((2 * sigmas).square() * (areas[..., None] + EPS) * 2)
    share = there.shape[-1] / (there.sum(-1, keepdim=True) + EPS)
    return share * (1 - torch.exp(-apart)) * there
