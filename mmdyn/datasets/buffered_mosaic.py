"""Mosaic of an image and three of those loaded last, as the original YOLO11 trains: one image is read, not four.

Its ``Mosaic`` takes the other three from a buffer of the last images, already resized and eight batches long
(https://docs.ultralytics.com/reference/data/augment).
"""

from collections import deque

import numpy as np
from mmyolo.datasets.transforms import Mosaic
from mmyolo.registry import TRANSFORMS

from .long_side_resize import LongSideResize


@TRANSFORMS.register_module()
class BufferedMosaic(Mosaic):
    """``Mosaic`` from a buffer. Every loader process has its own; until it holds four images, all four are read.

    Args:
        buffer_size: How many images are kept, at least four; a 640 px image is 1.2 MB.
        **kwargs: As in ``Mosaic``, except those of its cache.

    Raises:
        ValueError: ``buffer_size`` is below four.
    """

    def __init__(self, buffer_size: int = 128, **kwargs) -> None:
        if buffer_size < 4:
            raise ValueError(f'buffer_size must be at least 4, got {buffer_size}')
        super().__init__(use_cached=False, **kwargs)
        self.resize = LongSideResize(scale=self.img_scale)
        self.buffer: deque[dict] = deque(maxlen=buffer_size)

    def transform(self, results: dict) -> dict:
        """Make a mosaic.

        Args:
            results: An image with its boxes, and the data set that it is from.

        Returns:
            The mosaic in its place.
        """
        results = self.resize(results)
        self.buffer.append(_with_own_boxes(results))
        if len(self.buffer) < 4:
            return super().transform(results)
        if np.random.uniform() > self.prob:
            return results
        others = [_with_own_boxes(self.buffer[i]) for i in np.random.randint(len(self.buffer), size=3)]
        results = self.mix_img_transform(results | {'mix_results': others})
        del results['mix_results']
        return results


def _with_own_boxes(results: dict) -> dict:
    """A copy whose boxes can be moved; nothing writes into its image."""
    kept = {key: value for key, value in results.items() if key != 'dataset'}
    return kept | {'gt_bboxes': results['gt_bboxes'].clone()}
