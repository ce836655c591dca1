"""Steps of a pipeline for keypoints: loading, and mirroring."""

import numpy as np
import torch
from mmdet.datasets.transforms import RandomFlip
from mmyolo.datasets.transforms import LoadAnnotations
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets.keypoints import Keypoints


@TRANSFORMS.register_module()
class LoadKeypoints(LoadAnnotations):
    """``LoadAnnotations`` with the keypoints of every object, as :class:`mmdyn.datasets.keypoints.Keypoints`.

    Arguments are those of ``LoadAnnotations``.

    Example:
        >>> load = TRANSFORMS.build(dict(type='LoadKeypoints'))
        >>> one = dict(ignore_flag=0, bbox=[2, 2, 9, 9], bbox_label=0, keypoints=[[3, 4, 2], [5, 6, 1.0]])
        >>> load(dict(instances=[one], ori_shape=(20, 30), keypoint_count=2))['gt_keypoints'].keypoints_visible
        tensor([[2., 1.]])
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(with_bbox=True, **kwargs)

    def transform(self, results: dict) -> dict:
        """Load boxes, labels and ``gt_keypoints``; ``flip_indices`` of the data set go with them."""
        results = super().transform(results)
        rows = [each['keypoints'] for each in results['instances'] if not each['ignore_flag']]
        points = torch.from_numpy(np.array(rows, np.float32).reshape(-1, results['keypoint_count'], 3))
        flips = results.get('flip_indices')
        results['gt_keypoints'] = Keypoints(points[..., :2], points[..., 2], flip_indices=flips)
        return results


@TRANSFORMS.register_module()
class KeypointFlip(RandomFlip):
    """``mmdet.RandomFlip`` that also mirrors keypoints; arguments are the same.

    Nothing is mirrored where the data set does not say which keypoint each becomes (``flip_indices``).

    Example:
        >>> TRANSFORMS.build(dict(type='KeypointFlip', prob=0.5)).prob
        0.5
    """

    def transform(self, results: dict) -> dict:
        """Mirror the image and its objects, or not."""
        if results['gt_keypoints'].flip_indices is None:
            return results | dict(flip=False, flip_direction=None)
        return super().transform(results)

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        results['gt_keypoints'].flip_(results['img'].shape[:2], results['flip_direction'])
