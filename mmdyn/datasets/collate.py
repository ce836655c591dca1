"""Batches of training images: all objects of a batch as tensors, and how many each image has as plain numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.registry import FUNCTIONS


@FUNCTIONS.register_module()
def collate_targets(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate as ``mmyolo.datasets.yolov5_collate``, with the count of objects of every image.

    Args:
        batch: ``inputs`` (C, H, W) and ``data_samples`` of every image.

    Returns:
        ``inputs`` (B, C, H, W), and ``data_samples`` with ``bboxes_labels``, the image, the label and the corners of
        all n objects, (n, 6); ``counts``, a tuple of length B; and, where the images have them, ``masks`` (B, h, w),
        ``keypoints`` (n, K, 2) and ``keypoints_visible`` (n, K), or ``oriented_boxes`` (n, 5).
    """
    samples = [each['data_samples'] for each in batch]
    objects = [sample.gt_instances for sample in samples]
    rows = [
        torch.cat([torch.full((len(each), 1), float(i)), each.labels[:, None], each.bboxes.tensor], 1)
        for i, each in enumerate(objects)
    ]
    targets: dict[str, Any] = dict(bboxes_labels=torch.cat(rows), counts=tuple(map(len, rows)))
    if 'gt_planes' in samples[0]:
        targets['masks'] = torch.cat([sample.gt_planes.planes.int() for sample in samples])
    for key in ('keypoints', 'keypoints_visible', 'oriented_boxes'):
        if key in objects[0]:
            targets[key] = torch.cat([each[key] for each in objects])
    return dict(inputs=torch.stack([each['inputs'] for each in batch]), data_samples=targets)
