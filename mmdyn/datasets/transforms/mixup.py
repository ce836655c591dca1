"""Mix-up of two images, whatever the type of their pixels."""

from mmyolo.datasets.transforms import YOLOv5MixUp
from mmyolo.registry import TRANSFORMS


@TRANSFORMS.register_module()
class YOLO11MixUp(YOLOv5MixUp):
    """``YOLOv5MixUp`` that keeps the type of the pixels, and keypoints; mixed images of float32 have 256 levels.

    Example:
        >>> TRANSFORMS.build(dict(type='YOLO11MixUp', pre_transform=[], prob=0.15)).prob
        0.15
    """

    def mix_img_transform(self, results: dict) -> dict:
        """Mix the image with the one in ``mix_results``."""
        kind = results['img'].dtype
        if 'gt_keypoints' in results:
            both = [results['gt_keypoints'], results['mix_results'][0]['gt_keypoints']]
            results['gt_keypoints'] = both[0].cat(both)
        results = super().mix_img_transform(results)
        results['img'] = results['img'].astype(kind, copy=False)
        return results
