"""Resize as in the original YOLO11: to fit a given size, the shorter side rounded up, bilinear.

Subclass of MMYOLO's ``YOLOv5KeepRatioResize``, which rounds down and averages areas when it shrinks. One pixel and a
different interpolation change scores by some thousandths.
"""

import math

import mmcv
from mmyolo.datasets.transforms import YOLOv5KeepRatioResize
from mmyolo.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LongSideResize(YOLOv5KeepRatioResize):
    """Resize an image, and its boxes, to fit into ``scale``. Arguments are those of ``YOLOv5KeepRatioResize``.

    Example:
        >>> resize = LongSideResize(scale=(640, 640))
        >>> resize(dict(img=np.zeros((100, 201, 3), np.uint8)))['img'].shape
        (319, 640, 3)
    """

    def _resize_img(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        ratio = min(self.scale[0] / width, self.scale[1] / height)
        new_width, new_height = (
            min(math.ceil(side * ratio), limit) for side, limit in zip((width, height), self.scale, strict=True)
        )
        if ratio != 1:
            channels = results['img'].shape[2:]
            resized = mmcv.imresize(
                results['img'], (new_width, new_height), interpolation='bilinear', backend=self.backend
            )
            results['img'] = resized.reshape(new_height, new_width, *channels)  # OpenCV drops a single channel
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (new_width / width, new_height / height)
