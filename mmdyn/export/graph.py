"""The graph that is exported: an image batch to decoded boxes and scores, with or without NMS, or to scores of classes.

Shapes: B batch, N priors of all levels, C classes, K detections kept of an image, n boxes that NMS keeps of a batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmyolo.models.dense_heads import YOLOv8Head
from torch import Tensor, nn
from torchvision.ops import nms as torchvision_nms

from mmdyn.errors import UserError
from mmdyn.models.oriented import prob_iou
from mmdyn.tasks import TASKS, head_of

CANDIDATES = 1000  # of an image, for Fast NMS: their overlaps are a square


def _nms_by_class(boxes: Tensor, scores: Tensor, iou: float, score: float) -> Tensor:
    """ONNX's ``NonMaxSuppression``: (B, N, 4) and (B, C, N) -> rows of (image, class, box), (n, 3).

    Boxes of different images and classes are shifted apart, in float64 so that overlaps stay exact.
    """
    kept = (scores > score).nonzero()  # (candidates, 3)
    image, label, prior = kept.unbind(1)
    corners = boxes[image, prior].double()
    apart = (image * scores.shape[1] + label)[:, None] * (boxes.abs().max().double() * 2 + 1)
    order = torchvision_nms(corners + apart, scores[image, label, prior].double(), iou)
    return kept[order]


@torch.library.custom_op('mmdyn::nms_by_class', mutates_args=())
def nms_by_class(boxes: Tensor, scores: Tensor, iou: float, score: float) -> Tensor:
    """The same as one operator, which the ONNX exporter replaces with ONNX's own."""
    return _nms_by_class(boxes, scores, iou, score)


@nms_by_class.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float, score: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


class ClassificationGraph(nn.Module):
    """A classifier as a plain function of tensors.

    Args:
        model: Classifier.
        half: Compute in float16; images and outputs stay float32.
    """

    names: tuple[str, ...] = ('scores',)  # of the outputs

    def __init__(self, model: nn.Module, half: bool = False) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.half_precision = half

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Scores of the classes (B, C), whose sum is 1, of normalised images (B, 3, H, W)."""
        images = images.half() if self.half_precision else images
        return (self.model(images, mode='tensor').float().softmax(1),)


def plain_graph(model: nn.Module, half: bool = False) -> 'ClassificationGraph | DetectionGraph':
    """The graph of a model, without NMS.

    Raises:
        UserError: The head is not supported.
    """
    classifies = getattr(head_of(model), 'task', '') == 'classify'
    return ClassificationGraph(model, half) if classifies else DetectionGraph(model, half)


class DetectionGraph(nn.Module):
    """A detector as a plain function of tensors.

    Args:
        model: Detector whose head is YOLOv8's or YOLO11's, of any task.
        half: Compute in float16; images and outputs stay float32.

    Raises:
        UserError: The head is not supported.
    """

    def __init__(self, model: nn.Module, half: bool = False) -> None:
        super().__init__()
        head = getattr(model, 'bbox_head', None)
        if not isinstance(head, YOLOv8Head):
            raise UserError(
                f'only models with a head of YOLO11 or a YOLOv8Head are exported, not {type(head).__name__}'
            )
        extras = TASKS[getattr(head, 'task', 'detect')].outputs
        self.names: tuple[str, ...] = ('boxes', 'scores', *extras)  # of the outputs
        self.model = model.half() if half else model
        self.half_precision = half
        self.strides = tuple(head.featmap_strides)
        self.oriented = hasattr(head, 'exported_boxes')  # boxes have five numbers

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Decode every prior.

        Args:
            images: Normalised images, (B, 3, H, W).

        Returns:
            Boxes as left, top, right, bottom in pixels of ``images``, (B, N, 4), or oriented ones, (B, N, 5); scores of
            classes, (B, N, C); and what the task has: mask coefficients (B, N, P) and prototypes (B, P, H / 4, W / 4),
            or keypoints (B, N, K, 3).
        """
        images = images.half() if self.half_precision else images
        logits, distances, *others = self.model(images, None, mode='tensor')
        if self.oriented:
            head: Any = self.model.bbox_head
            boxes = head.exported_boxes(distances, others, *self._cells(logits))
        else:
            boxes = torch.cat([_decode(d.float(), s) for d, s in zip(distances, self.strides, strict=True)], dim=1)
        scores = torch.cat([level.flatten(2) for level in logits], dim=2).float().sigmoid()  # (B, C, N)
        extras: tuple[Tensor, ...] = ()
        if len(self.names) > 2:
            head = self.model.bbox_head
            extras = head.exported(others, *self._cells(logits))
        return boxes, scores.transpose(1, 2), *extras

    def _cells(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Centres in strides (N, 2), and strides (N, 1), of all priors."""
        centres = [_centres(level).flatten(1).T for level in levels]
        strides = [torch.full_like(c[:, :1], s) for c, s in zip(centres, self.strides, strict=True)]
        return torch.cat(centres), torch.cat(strides)


def _centres(level: Tensor) -> Tensor:
    """Centres of the cells of a level (B, C, H, W), in strides, float32 (2, H, W)."""
    height, width = level.shape[2:]
    rows = (torch.arange(height, dtype=torch.float32, device=level.device) + 0.5)[:, None].expand(height, width)
    columns = (torch.arange(width, dtype=torch.float32, device=level.device) + 0.5).expand(height, width)
    return torch.stack((columns, rows))


def _decode(distances: Tensor, stride: int) -> Tensor:
    """Distances to the four sides in strides, (B, 4, H, W) -> boxes in pixels, (B, H * W, 4)."""
    centres = _centres(distances)
    corners = torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), dim=1)
    return (corners * stride).flatten(2).transpose(1, 2)


class DetectionGraphWithNMS(nn.Module):
    """A :class:`DetectionGraph` followed by NMS per class.

    Args:
        graph: The detector.
        iou: Overlap above which the lower of two boxes of a class is dropped.
        score: Score threshold.
        keep: Number of detections K per image.
        one_operator: NMS as one operator of this package, for the ONNX exporter.
        masks: Instead of coefficients and prototypes, give the logits of the masks.
    """

    def __init__(
        self, graph: DetectionGraph, iou: float, score: float, keep: int, one_operator: bool, masks: bool = False
    ) -> None:
        super().__init__()
        self.detector, self.iou, self.score, self.keep, self.masks = graph, iou, score, keep, masks
        self.nms = nms_by_class if one_operator else _nms_by_class
        extras = graph.names[2:]
        self.names: tuple[str, ...] = ('dets', 'labels', *(('masks',) if masks else extras))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: Normalised images, (B, 3, H, W).

        Returns:
            Boxes and scores, best first, (B, K, 5), or (B, K, 6) of oriented boxes, and labels, (B, K); unused entries
            have score 0, label -1. What the task has is of these detections, (B, K, …); logits of masks are
            (B, K, H / 4, W / 4).
        """
        boxes, scores, *extras = self.detector(images)
        if self.detector.oriented:
            return fast_nms(boxes, scores, self.iou, self.score, self.keep)
        by_class = scores.transpose(1, 2).contiguous()  # (B, C, N)
        image, label, prior = self.nms(boxes, by_class, self.iou, self.score).unbind(1)
        kept = torch.zeros_like(scores)
        kept[image, prior, label] = scores[image, prior, label]
        values, order = kept.flatten(1).topk(min(self.keep, scores[0].numel()), dim=1)  # (B, K) of N * C
        classes = scores.shape[2]
        priors = order // classes
        labels = torch.where(values > 0, order % classes, -1)
        dets = torch.cat((of_priors(boxes, priors), values[..., None]), dim=2)
        outputs = dict(zip(self.detector.names, (boxes, scores, *extras), strict=True))
        return dets, labels, *extras_of(outputs, priors, self.masks).values()


def fast_nms(boxes: Tensor, scores: Tensor, iou: float, score: float, keep: int) -> tuple[Tensor, Tensor]:
    """Fast NMS of oriented boxes by ProbIoU within classes, among the best :data:`CANDIDATES` of an image.

    Args:
        boxes: (B, N, 5).
        scores: (B, N, C).
        iou: As in :class:`DetectionGraphWithNMS`.
        score: As there.
        keep: As there.

    Returns:
        Boxes and scores (B, K, 6), and labels (B, K).
    """
    classes = scores.shape[2]
    values, order = scores.flatten(1).topk(min(CANDIDATES, scores[0].numel()), dim=1)  # (B, M) of N * C
    boxes, labels = of_priors(boxes, order // classes), order % classes
    places = torch.arange(values.shape[1], device=values.device)
    rivals = (labels[:, :, None] == labels[:, None]) & (places[:, None] < places)  # (B, better, M)
    dropped = ((prob_iou(boxes[:, :, None], boxes[:, None]) > iou) & rivals).any(1)
    kept = torch.where(dropped | (values <= score), torch.zeros_like(values), values)
    values, order = kept.topk(min(keep, kept.shape[1]), dim=1)
    labels = torch.where(values > 0, labels.gather(1, order), -1)
    return torch.cat((of_priors(boxes, order), values[..., None]), dim=2), labels


def of_priors(values: Tensor, priors: Tensor) -> Tensor:
    """Rows (B, K, …) of values (B, N, …) at the indices ``priors``, (B, K)."""
    rows = values.flatten(2)
    return rows.gather(1, priors[..., None].expand(-1, -1, rows.shape[2])).unflatten(2, values.shape[2:])


def extras_of(outputs: Mapping[str, Tensor], priors: Tensor | None = None, masks: bool = False) -> dict[str, Tensor]:
    """What a task has beside boxes and scores.

    Args:
        outputs: Outputs of a :class:`DetectionGraph` by name.
        priors: Indices of priors, (B, K); None takes all.
        masks: Instead of coefficients and prototypes, the logits of masks, (B, K, H / 4, W / 4).
    """
    extras = {name: value for name, value in outputs.items() if name not in ('boxes', 'scores')}
    if priors is not None:
        of_image = ('prototypes',)
        extras = {k: v if k in of_image else of_priors(v, priors) for k, v in extras.items()}
    if not masks:
        return extras
    coefficients, prototypes = extras['coefficients'], extras['prototypes']
    return dict(masks=(coefficients @ prototypes.flatten(2)).unflatten(2, prototypes.shape[2:]))
