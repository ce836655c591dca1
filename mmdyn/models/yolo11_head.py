"""YOLO11 head: YOLOv8's regression branch, and a class branch of depthwise-separable convolutions.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11. Loss and decoding are those of MMYOLO's
``YOLOv8Head``, which takes the module here as its ``head_module``.
"""

import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from mmyolo.models.dense_heads import YOLOv8Head, YOLOv8HeadModule
from mmyolo.registry import MODELS
from torch import Tensor, nn

from mmdyn.layers.conv_unit import conv_bn_act
from mmdyn.tasks import Task, register_task

from .initialisation import reset_convs
from .priors import YOLO11PointGenerator

DETECT = register_task(
    Task(
        name='detect',
        title='detection',
        original_head='Detect',
        fields=('bboxes', 'scores', 'labels'),
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
        if type(self.prior_generator) is MlvlPointGenerator:  # the default of YOLOv8Head
            offset, strides = self.prior_generator.offset, self.prior_generator.strides
            self.prior_generator = YOLO11PointGenerator(strides, offset)
        stated = getattr(getattr(self, 'assigner', None), 'stated_classes', None)
        if stated not in (None, self.num_classes):
            raise ValueError(
                f'train_cfg.assigner.num_classes={stated}, but head_module.num_classes={self.num_classes}: '
                'remove the first, only the second is needed'
            )

    def predict_by_feat(self, *args, cfg: dict | None = None, **kwargs) -> list[InstanceData]:
        """Boxes of a batch, as in ``YOLOv8Head``; arguments are the same."""
        results = super().predict_by_feat(*args, cfg=cfg, **kwargs)
        clip = (self.test_cfg if cfg is None else cfg).get('clip_boxes', True)
        for result in results:
            unclipped = result.pop('unclipped', None)
            if not clip and unclipped is not None:
                result.bboxes = unclipped
        return results

    def _bbox_post_process(self, results: InstanceData, cfg: ConfigDict, *args, **kwargs) -> InstanceData:
        """Boxes after NMS; a copy is kept, as the caller clips them in place."""
        if cfg.get('classes') is not None:
            results = results[torch.isin(results.labels, results.labels.new_tensor(cfg.classes))]
        results = super()._bbox_post_process(results, cfg, *args, **kwargs)
        results.unclipped = results.bboxes.clone()
        return results
