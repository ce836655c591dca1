"""Resize as in the original YOLO11: to fit a given size, the shorter side rounded up, bilinear.

Subclass of MMYOLO's ``YOLOv5KeepRatioResize``, which rounds down and averages areas when it shrinks. One pixel and a
different interpolation change scores by some thousandths.
"""

import math

import mmcv
from mmyolo.datasets.transforms import LetterResize, YOLOv5KeepRatioResize
from mmyolo.registry import TRANSFORMS

from mmdyn.errors import UserError


def fitted_size(scale: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Width and height of an image that is resized to fit into a scale; the shorter side is rounded up."""
    ratio = min(scale[0] / width, scale[1] / height)
    return min(math.ceil(width * ratio), scale[0]), min(math.ceil(height * ratio), scale[1])


@TRANSFORMS.register_module()
class LongSideResize(YOLOv5KeepRatioResize):
    """Resize an image, and its boxes, to fit into ``scale``. Arguments are those of ``YOLOv5KeepRatioResize``.

    An image of the cache is resized already; its boxes are not.

    Example:
        >>> resize = LongSideResize(scale=(640, 640))
        >>> resize(dict(img=np.zeros((100, 201, 3), np.uint8)))['img'].shape
        (319, 640, 3)
    """

    def _resize_img(self, results: dict) -> None:
        cached = results.pop('size_before_cache', None)
        height, width = cached or results['img'].shape[:2]
        new_width, new_height = fitted_size(self.scale, width, height)
        if cached and results['img'].shape[:2] != (new_height, new_width):
            raise UserError(
                f'the image cache has images of {results["img"].shape[1]} x {results["img"].shape[0]} pixels where a '
                f'step of the pipeline resizes to {new_width} x {new_height}: set one size, or omit the cache'
            )
        if results['img'].shape[:2] != (new_height, new_width):
            channels = results['img'].shape[2:]
            resized = mmcv.imresize(
                results['img'], (new_width, new_height), interpolation='bilinear', backend=self.backend
            )
            results['img'] = resized.reshape(new_height, new_width, *channels)  # OpenCV drops a single channel
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (new_width / width, new_height / height)

    def _resize_masks(self, results: dict) -> None:
        if 'gt_masks' in results:
            results['gt_masks'] = results['gt_masks'].resize(results['img_shape'][:2])

    def _resize_bboxes(self, results: dict) -> None:
        super()._resize_bboxes(results)
        if 'gt_keypoints' in results:
            results['gt_keypoints'].rescale_(results['scale_factor'])


@TRANSFORMS.register_module()
class LetterBox(LetterResize):
    """``LetterResize`` that also moves keypoints; arguments are the same.

    Example:
        >>> letterbox = LetterBox(scale=(64, 64), pad_val=dict(img=114))
        >>> letterbox(dict(img=np.zeros((32, 64, 3), np.uint8)))['img'].shape
        (64, 64, 3)
    """

    def _resize_bboxes(self, results: dict) -> None:
        super()._resize_bboxes(results)
        if 'gt_keypoints' in results:
            points = results['gt_keypoints']
            points.rescale_(results['scale_factor'])
            points.translate_((float(results['pad_param'][2]), float(results['pad_param'][0])))
