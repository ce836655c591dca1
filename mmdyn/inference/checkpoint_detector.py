"""A detector or a classifier from a config and a checkpoint, with the interface of an exported file."""

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope

from mmdyn.checkpoints import classes_of, load_checkpoint, refuse_other_architecture, state_dict_of
from mmdyn.errors import UserError
from mmdyn.layers import upcycled_state
from mmdyn.models.build import build_model
from mmdyn.running.image_channels import image_channels, keeps_sixteen_bits
from mmdyn.running.loading import class_names
from mmdyn.running.messages import config_errors
from mmdyn.tasks import head_of

from .onnx_detector import Detections, Limits, best_classes, refuse_limits_of_boxes, threshold
from .prediction import FIELDS


class CheckpointDetector:
    """Detects in images or classifies them, as :class:`mmdyn.inference.onnx_detector.OnnxDetector` does.

    Args:
        cfg: Config.
        checkpoint: Its checkpoint.
        device: Device of the model; None takes a GPU if available.

    Raises:
        UserError: The config does not build, or the checkpoint does not load or fit.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, device: str | None = None) -> None:
        content = load_checkpoint(checkpoint)
        try:
            torch.device(device or 'cpu')
        except RuntimeError as e:
            raise UserError(f'invalid device {device}: set cpu, cuda or cuda:0') from e
        device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
        with config_errors():
            model = revert_sync_batchnorm(build_model(cfg))
        tensors = state_dict_of(content, checkpoint)
        tensors = upcycled_state(model, tensors) or tensors
        refuse_other_architecture(model, tensors, str(checkpoint))
        model.load_state_dict(tensors, strict=False)  # counters of batch norms may be missing
        self.model = model.to(device)
        self.model.cfg = cfg
        head = head_of(self.model)
        self.names = class_names(classes_of(content), cfg, head.num_classes)
        self.skeleton = getattr(head, 'skeleton', ())  # of keypoints, in pictures
        self.classifies = getattr(head, 'task', '') == 'classify'
        self.lock = threading.Lock()  # limits are set in the head for the time of a call
        self.channels = image_channels(cfg)
        self.to_float32 = keeps_sixteen_bits(cfg)
        _, *rest = get_test_pipeline_cfg(cfg)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            self.pipeline = Compose([dict(type='mmdet.LoadImageFromNDArray'), *rest])

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[np.ndarray],
        score: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
    ) -> list[Detections]:
        """Detect in a batch; images that the pipeline leaves at different sizes go through the network one by one.

        Args:
            images: Arrays as :func:`mmdyn.datasets.pixels.read_pixels` gives them, (H, W, channels) each.
            score: As all that follow, which detections are kept: see :class:`mmdyn.inference.onnx_detector.Limits`.
            iou: Overlap for NMS.
            max_detections: Most detections of an image.
            classes: Indices of classes.
            agnostic: NMS among all classes.
        """
        prepared = [self.pipeline(dict(img=image, img_id=i)) for i, image in enumerate(images)]
        samples: list[Any] = []
        limits = Limits(score, iou, max_detections, classes, agnostic)
        self.check_limits(limits)
        with self.lock, nullcontext() if self.classifies else self._limited(limits):
            for _, group in groupby(prepared, key=lambda data: data['inputs'].shape):
                part = list(group)
                batch = {key: [data[key] for data in part] for key in ('inputs', 'data_samples')}
                samples += self.model.test_step(batch)
        if self.classifies:
            return [best_classes(sample.pred_score.cpu().numpy(), limits) for sample in samples]
        return [_detections(sample, threshold(limits), classes) for sample in samples]

    def check_limits(self, limits: Limits) -> None:
        """Refuse limits of boxes for a classifier; an exported file may refuse more.

        Raises:
            LimitError: ``iou`` or ``agnostic`` is set.
        """
        if self.classifies:
            refuse_limits_of_boxes(limits)

    @contextmanager
    def _limited(self, limits: Limits) -> Iterator[None]:
        """Let the head keep what ``limits`` says."""
        head = self.model.bbox_head
        before = head.test_cfg
        head.test_cfg = test = copy.deepcopy(before)  # update() merges into the dicts within
        test.score_thr = threshold(limits)
        if limits.iou is not None:
            test.nms.iou_threshold = limits.iou
        if limits.agnostic:
            test.nms.class_agnostic = True
        if limits.max_detections is not None:
            test.max_per_img = limits.max_detections
        if limits.classes is not None:
            test.classes = list(limits.classes)
        try:
            yield
        finally:
            head.test_cfg = before


def _detections(sample: Any, score: float, classes: Sequence[int] | None) -> Detections:
    """The detections of a data sample; heads of other packages know no choice of classes."""
    found = sample.pred_instances
    found = found[found.scores > score]
    if classes is not None:
        found = found[torch.isin(found.labels, found.labels.new_tensor(list(classes)))]
    found = found.cpu()
    values: list[Any] = [found[name].numpy() if name in found else None for name in FIELDS]
    return Detections(*values)
