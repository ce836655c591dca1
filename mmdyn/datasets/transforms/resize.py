"""Resize as in the original YOLO11: the long side to a given size, the short side rounded up, bilinear.

Subclass of MMYOLO's ``YOLOv5KeepRatioResize``, which rounds down and averages areas when it shrinks. One pixel and a
different interpolation change scores by some thousandths.
"""

import math

import mmcv
from mmyolo.datasets.transforms import YOLOv5KeepRatioResize
from mmyolo.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LongSideResize(YOLOv5KeepRatioResize):
    """Resize an image, and its boxes, to fit into a square. Arguments are those of ``YOLOv5KeepRatioResize``.

    Example:
        >>> resize = LongSideResize(scale=(640, 640))
        >>> resize(dict(img=np.zeros((100, 201, 3), np.uint8)))['img'].shape
        (319, 640, 3)
    """

    def _resize_img(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        longest = max(self.scale)
        ratio = longest / max(height, width)
        new_width, new_height = (min(math.ceil(side * ratio), longest) for side in (width, height))
        if ratio != 1:
            channels = results['img'].shape[2:]
            resized = mmcv.imresize(
                results['img'], (new_width, new_height), interpolation='bilinear', backend=self.backend
            )
            results['img'] = resized.reshape(new_height, new_width, *channels)  # OpenCV drops a single channel
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (new_width / width, new_height / height)
