"""YOLO11 head: YOLOv8's regression branch, and a class branch of depthwise-separable convolutions.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11. Losses and coders are those of MMYOLO's
``YOLOv8Head``, which takes the module here as its ``head_module``. The heads of other tasks are subclasses, with
outputs, losses and fields of their own.

Shapes: B batch, N priors of all levels, P positives of an image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.models.utils import filter_scores_and_topk
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from mmyolo.models.dense_heads import YOLOv8Head, YOLOv8HeadModule
from mmyolo.registry import MODELS
from torch import Tensor, nn

from mmdyn.errors import UserError
from mmdyn.layers.conv_unit import conv_bn_act
from mmdyn.tasks import TASKS, Task, register_task

from .assignment import Positives, Targets, positives_of, targets_of
from .initialisation import reset_convs
from .priors import YOLO11PointGenerator

DETECT = register_task(
    Task(
        name='detect',
        title='detection',
        original_head='Detect',
        original_model='DetectionModel',
        suffix='',
        parts='boxes',
        metrics={'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50', 'AP75': 'coco/bbox_mAP_75'},
    )
)


@MODELS.register_module()
class YOLO11HeadModule(YOLOv8HeadModule):
    """Head module of YOLO11: class logits and box distances of every level.

    Arguments are those of ``YOLOv8HeadModule``; ``in_channels`` is (256, 512, 1024), on scales m, l, x (256, 512, 512),
    before scaling.

    Example:
        >>> module = YOLO11HeadModule(num_classes=3, in_channels=[256, 512, 1024], widen_factor=0.25, reg_max=16).eval()
        >>> features = [torch.rand(1, c, s, s) for c, s in ((64, 40), (128, 20), (256, 10))]
        >>> logits, distances = module(features)
        >>> logits[0].shape, distances[0].shape
        (torch.Size([1, 3, 40, 40]), torch.Size([1, 4, 40, 40]))
    """

    def _init_layers(self) -> None:
        first = self.in_channels[0]
        bins = 4 * self.reg_max
        reg_width = max(16, first // 4, bins)
        cls_width = max(first, min(self.num_classes, 100))
        norm_act = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.reg_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, reg_width, 3, **norm_act),
                conv_bn_act(reg_width, reg_width, 3, **norm_act),
                nn.Conv2d(reg_width, bins, 1),
            )
            for channels in self.in_channels
        )
        self.cls_preds = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(channels, channels, 3, groups=channels, **norm_act),
                conv_bn_act(channels, cls_width, **norm_act),
                conv_bn_act(cls_width, cls_width, 3, groups=cls_width, **norm_act),
                conv_bn_act(cls_width, cls_width, **norm_act),
                nn.Conv2d(cls_width, self.num_classes, 1),
            )
            for channels in self.in_channels
        )
        self.register_buffer('proj', torch.arange(self.reg_max, dtype=torch.float), persistent=False)

    def forward_single(self, x: Tensor, cls_pred: nn.Module, reg_pred: nn.Module) -> tuple[Tensor, ...]:
        """One level: logits and distances; distances are decoded in float32 at least, also under autocast.

        Args:
            x: Features, (B, C, H, W).
            cls_pred: Class branch of the level.
            reg_pred: Regression branch of the level.

        Returns:
            Class logits (B, classes, H, W), distances to the four sides in strides (B, 4, H, W), and in training the
            logits of their bins (B, H * W, 4, bins).
        """
        batch, _, height, width = x.shape
        logits, distances = cls_pred(x), reg_pred(x)
        if self.reg_max > 1:
            wide = distances.to(torch.promote_types(distances.dtype, torch.float32))
            bins = wide.reshape(batch, 4, self.reg_max, -1).permute(0, 3, 1, 2)  # (B, HW, 4, bins)
            with torch.autocast(x.device.type, enabled=False):
                distances = bins.softmax(3).matmul(self.proj[:, None].to(bins.dtype)).squeeze(3)  # (B, HW, 4)
            distances = distances.transpose(1, 2).reshape(batch, 4, height, width)
        else:
            bins = distances
        return (logits, distances, bins) if self.training else (logits, distances)

    def init_weights(self, prior_prob: float = 0.01) -> None:
        """Initialise the convolutions as PyTorch does, and the biases of the last ones as YOLOv8 does.

        Args:
            prior_prob: Unused, as in ``YOLOv8HeadModule``.
        """
        reset_convs(self)
        super().init_weights(prior_prob)


def rows_of(levels: Sequence[Tensor]) -> Tensor:
    """What every level says, (B, C, H, W) each, as a row for every prior, (B, N, C)."""
    return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2)  # pnnx does not know mT


def in_original(points: Tensor, meta: dict) -> Tensor:
    """Points (…, 2) of the network's image in the original one: without its padding, at its scale."""
    left, top = meta['pad_param'][2::-2] if meta.get('pad_param') is not None else (0, 0)
    return (points - points.new_tensor([left, top])) / points.new_tensor(meta['scale_factor'])


@MODELS.register_module()
class YOLO11Head(YOLOv8Head):
    """``YOLOv8Head`` with optional clipping of boxes to the image, and with a choice of classes.

    Arguments are those of ``YOLOv8Head``. ``test_cfg.clip_boxes=False`` does not clip predicted boxes, as in the
    validation of the Ultralytics package since 8.4. Clipping, the default, corresponds to its earlier validation, its
    COCO result files, and COCO's own evaluation. ``test_cfg.classes=[0, 2]`` predicts these classes only; the others do
    not take part in NMS, which is among all classes with ``test_cfg.nms.class_agnostic=True``.

    Example:
        >>> module = dict(type='YOLO11HeadModule', num_classes=3, in_channels=[256, 512, 1024], widen_factor=0.25)
        >>> head = YOLO11Head(head_module=module, test_cfg=dict(clip_boxes=False))
        >>> head.num_classes, type(head.prior_generator).__name__
        (3, 'YOLO11PointGenerator')
    """

    task = DETECT.name
    prior_generator: MlvlPointGenerator

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._last_priors: tuple[Any, Tensor] | None = None
        if type(self.prior_generator) is MlvlPointGenerator:  # the default of YOLOv8Head
            offset, strides = self.prior_generator.offset, self.prior_generator.strides
            self.prior_generator = YOLO11PointGenerator(strides, offset)
        stated = getattr(getattr(self, 'assigner', None), 'stated_classes', None)
        if stated not in (None, self.num_classes):
            raise ValueError(
                f'train_cfg.assigner.num_classes={stated}, but head_module.num_classes={self.num_classes}: '
                'remove the first, only the second is needed'
            )

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: dict | list) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            x: Features of every level.
            batch_data_samples: What :func:`mmdyn.datasets.collate.collate_targets` makes, or MMYOLO's, or data samples.

        Raises:
            UserError: They are data samples, and the task needs more than boxes.
        """
        if isinstance(batch_data_samples, list):
            task = TASKS[self.task]
            if task.labels is not None:
                raise UserError(
                    f'a model of {task.title} is trained on batches with {task.labels}, which data samples lack: set '
                    "train_dataloader.collate_fn=dict(type='collate_targets') and a YOLO11DataPreprocessor"
                )
            return super().loss(x, batch_data_samples)
        samples = batch_data_samples
        table, counts = samples['bboxes_labels'], samples.get('counts')
        targets = targets_of(table, len(x[0]), counts)
        return self.losses(self(x), targets._replace(extras=self._extra_targets(samples, targets.counts)))

    def _extra_targets(self, samples: dict, counts: Sequence[int]) -> dict[str, Tensor]:
        """What a task takes from a batch beside boxes and labels."""
        return {}

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        bbox_dist_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData] | Tensor,
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """The same from outputs, as MMDetection calls it; arguments are those of ``YOLOv8Head``."""
        targets = targets_of(batch_gt_instances, len(cls_scores[0]))
        return self.losses((cls_scores, bbox_preds, bbox_dist_preds), targets)

    def losses(self, outputs: Sequence[Sequence[Tensor]], targets: Targets) -> dict[str, Tensor]:
        """The losses of a task, each times the images of the batch, as the original.

        Args:
            outputs: What the head module returns in training.
            targets: The objects.
        """
        return self.detection_losses(outputs, targets)[0]

    def detection_losses(
        self, outputs: Sequence[Sequence[Tensor]], targets: Targets
    ) -> tuple[dict[str, Tensor], Positives]:
        """Assign objects to priors; losses of boxes and classes.

        Args:
            outputs: Class logits (B, classes, H, W), distances in strides (B, 4, H, W), and logits of their bins
                (B, H * W, 4, bins), each of every level; and what else the head module returns.
            targets: The objects.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_dfl``; and which priors have an object.
        """
        logits, distances = map(rows_of, outputs[:2])
        bins = torch.cat([level.flatten(2) for level in outputs[2]], 1)  # (B, N, 4 * bins)
        priors = self._priors(outputs[0])
        boxes = self._boxes(priors, distances, outputs[3:])  # (B, N, 4)
        assigned = self.assigner(boxes.detach().to(targets.boxes), logits.detach().sigmoid(), priors, *targets[:3])
        scores = assigned['assigned_scores']
        total = scores.sum().clamp(min=1)
        positives = positives_of(assigned, self._cells(priors), targets.counts, self.assigner.topk)
        apart, sides = self._apart(positives.take(boxes), positives.boxes, positives.take(priors))
        loss_dfl = self.loss_dfl(
            positives.take(bins).reshape(-1, self.head_module.reg_max),
            sides.reshape(-1),
            weight=positives.weight[..., None].expand(-1, -1, 4).reshape(-1),
            avg_factor=total,
        )
        losses = dict(
            loss_cls=self.loss_cls(logits, scores).sum() / total,
            loss_bbox=(apart * positives.weight).sum() / total,
            loss_dfl=loss_dfl,
        )
        return {name: self._of_batch(value, len(logits)) for name, value in losses.items()}, positives

    def _boxes(self, priors: Tensor, distances: Tensor, others: Sequence[Any]) -> Tensor:
        """Boxes in pixels of all priors, of distances (B, N, 4) in strides."""
        return self.bbox_coder.decode(priors[:, :2], distances, priors[:, 2])

    def _cells(self, priors: Tensor) -> Tensor:
        """The cell of every prior as a box in pixels."""
        centre, stride = priors.split(2, 1)
        return torch.cat([centre - stride / 2, centre + stride / 2], 1)

    def _apart(self, found: Tensor, wanted: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each box (B, P), and the distances that were wanted, in strides (B, P, 4).

        Args:
            found: Predicted boxes in pixels, (B, P, 4).
            wanted: Boxes of the objects in pixels, (B, P, 4).
            priors: Where they were predicted, centre and strides in pixels, (B, P, 4).
        """
        centre, stride = priors[..., :2], priors[..., 2:3]
        wanted = wanted / stride
        sides = self.bbox_coder.encode(centre / stride, wanted, max_dis=self.head_module.reg_max - 1, eps=0.01)
        return self.loss_bbox(found / stride, wanted, reduction_override='none'), sides

    def exported(self, others: Sequence[Any], centres: Tensor, strides: Tensor) -> tuple[Tensor, ...]:
        """The ``outputs`` of the task in an exported graph.

        Args:
            others: What the head module of a task returns beside logits and distances.
            centres: Of every prior, in strides, (N, 2).
            strides: Of every prior, (N, 1).

        Returns:
            A tensor for each; what is of a prior is (B, N, …).
        """
        return ()

    def _of_batch(self, loss: Tensor, images: int) -> Tensor:
        """A loss times the images in all processes, whose gradients are averaged."""
        return loss * images * get_world_size()

    def _priors(self, levels: Sequence[Tensor]) -> Tensor:
        """Centre and strides of every prior in pixels, (N, 4); the last ones are kept."""
        made_for = [level.shape[2:] for level in levels], levels[0].dtype, levels[0].device
        if self._last_priors is None or self._last_priors[0] != made_for:
            sizes, dtype, device = made_for
            priors = self.prior_generator.grid_priors(sizes, dtype=dtype, device=device, with_stride=True)
            self._last_priors = made_for, torch.cat(priors)
        return self._last_priors[1]

    def predict_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        *others: Any,
        batch_img_metas: Sequence[dict],
        cfg: dict | None = None,
        rescale: bool = True,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """The objects of every image.

        Args:
            cls_scores: Class logits of every level, (B, classes, H, W).
            bbox_preds: Distances of every level in strides, (B, 4, H, W).
            *others: What the head module of a task returns beside them.
            batch_img_metas: Sizes of the images, by MMDetection's names.
            cfg: ``test_cfg`` for this call.
            rescale: Return positions in the original image, not in that of the network.
            with_nms: Remove boxes that overlap one of a higher score.

        Returns:
            ``bboxes`` (n, 4), corners in pixels, ``scores`` (n,) and ``labels`` (n,), by falling score; and the fields
            of the task.
        """
        cfg = self.test_cfg if cfg is None else cfg
        logits, distances = rows_of(cls_scores), rows_of(bbox_preds)
        priors = self._priors(cls_scores)
        boxes = self._boxes(priors, distances, others)  # (B, N, 4)
        results = []
        for image, meta in enumerate(batch_img_metas):
            found = self._candidates(logits[image].sigmoid(), boxes[image], cfg)
            found = self._selected(found, meta, cfg, rescale, with_nms)
            if rescale and cfg.get('clip_boxes', True):
                found.bboxes[:, 0::2].clamp_(0, meta['ori_shape'][1])
                found.bboxes[:, 1::2].clamp_(0, meta['ori_shape'][0])
            results.append(self._with_fields(found, image, others, meta, rescale))
        return results

    def _candidates(self, scores: Tensor, boxes: Tensor, cfg: dict) -> InstanceData:
        """What takes part in NMS, of the scores (N, classes) and boxes (N, 4) of an image."""
        threshold, most = cfg.get('score_thr', -1), cfg.get('nms_pre', 100000)
        if cfg['multi_label'] and self.num_classes > 1:
            values, labels, prior, _ = filter_scores_and_topk(scores, threshold, most)
        else:
            best, label = scores.max(1, keepdim=True)
            values, _, prior, (labels,) = filter_scores_and_topk(best, threshold, most, [label[:, 0]])
        found = InstanceData(scores=values, labels=labels, bboxes=boxes[prior], priors=prior)
        if cfg.get('classes') is not None:
            found = found[torch.isin(labels, labels.new_tensor(cfg['classes']))]
        return found

    def _selected(self, found: InstanceData, meta: dict, cfg: dict, rescale: bool, with_nms: bool) -> InstanceData:
        """What is left of an image after NMS; arguments are those of :meth:`predict_by_feat`."""
        if rescale:
            found.bboxes = in_original(found.bboxes.unflatten(1, (2, 2)), meta).flatten(1)
        return self._bbox_post_process(found, cfg, with_nms=with_nms, img_meta=meta)

    def _with_fields(
        self, found: InstanceData, image: int, others: Sequence[Any], meta: dict, rescale: bool
    ) -> InstanceData:
        """The objects of an image with the fields of the task; ``priors`` says where each comes from."""
        del found.priors
        return found
