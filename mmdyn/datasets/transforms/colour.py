"""Random hue, saturation and value of the images that have colours."""

import numpy as np
from mmyolo.datasets.transforms import YOLOv5HSVRandomAug
from mmyolo.registry import TRANSFORMS


@TRANSFORMS.register_module()
class YOLO11HSVRandomAug(YOLOv5HSVRandomAug):
    """``YOLOv5HSVRandomAug`` that passes images of other than three channels, or of more than 8 bits, unchanged.

    Arguments are the same: ``hue_delta``, ``saturation_delta`` and ``value_delta``, the largest relative changes.

    Example:
        >>> colour = TRANSFORMS.build(dict(type='YOLO11HSVRandomAug', value_delta=0.5))
        >>> grey = np.zeros((32, 32, 1), np.uint8)
        >>> colour(dict(img=grey))['img'] is grey
        True
    """

    def transform(self, results: dict) -> dict:
        """Change the colours of a BGR uint8 image (H, W, 3)."""
        image = results['img']
        return super().transform(results) if image.shape[2:] == (3,) and image.dtype == np.uint8 else results
