"""Mosaic of an image and three recently loaded ones, as the original YOLO11 trains: one image is read, not four.

Its ``Mosaic`` takes the other three from a buffer of the last images, already resized and eight batches long
(https://docs.ultralytics.com/reference/data/augment).
"""

from collections import deque

import numpy as np
from mmyolo.datasets.transforms import Mosaic
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets.keypoints import Keypoints

from .resize import LetterBox, LongSideResize

CORNERS = ('top_left', 'top_right', 'bottom_left', 'bottom_right')


@TRANSFORMS.register_module()
class BufferedMosaic(Mosaic):
    """``Mosaic`` of boxes, outlines and keypoints. Every loader process has its own buffer of images.

    Until the buffer has four images, all four are read. An image without mosaic is letterboxed to ``img_scale``.

    Args:
        buffer_size: Number of images in the buffer, at least four; a 640 px image is 1.2 MB.
        **kwargs: As in ``Mosaic``, except those of its cache.

    Raises:
        ValueError: ``buffer_size`` is below four.

    Example:
        >>> mosaic = TRANSFORMS.build(dict(type='BufferedMosaic', img_scale=(640, 640), buffer_size=32))
        >>> mosaic.buffer.maxlen
        32
    """

    def __init__(self, buffer_size: int = 128, **kwargs) -> None:
        if buffer_size < 4:
            raise ValueError(f'buffer_size must be at least 4, got {buffer_size}')
        super().__init__(use_cached=False, **kwargs)
        self.resize = LongSideResize(scale=self.img_scale)
        self.letterbox = LetterBox(self.img_scale, allow_scale_up=True, pad_val=dict(img=int(self.pad_val)))
        self.buffer: deque[dict] = deque(maxlen=buffer_size)

    def transform(self, results: dict) -> dict:
        """Make a mosaic.

        Args:
            results: An image with its boxes and its data set.

        Returns:
            The mosaic, or the image alone with ``mosaic=False``.
        """
        results = self.resize(results)
        self.buffer.append(_with_own_boxes(results))
        if np.random.uniform() > self.prob:
            return self.letterbox(results) | {'mosaic': False}  # YOLO11RandomAffine then adds no border
        if len(self.buffer) < 4:
            others = [self._read(results['dataset']) for _ in range(3)]
        else:
            others = [_with_own_boxes(self.buffer[i]) for i in np.random.randint(len(self.buffer), size=3)]
        return self.mix_img_transform(results | {'mix_results': others})

    def _read(self, dataset) -> dict:
        """A random image of the data set, resized."""
        info = dataset.get_data_info(np.random.randint(len(dataset)))
        return self.resize(self.pre_transform(info | {'dataset': dataset}))

    def mix_img_transform(self, results: dict) -> dict:
        """Place four images at a random centre and crop them to the mosaic.

        Args:
            results: The first image, and the three others as ``mix_results``; all resized.

        Returns:
            The mosaic, twice as wide and high as ``img_scale``.
        """
        patches = [results, *results.pop('mix_results')]
        width, height = self.img_scale
        channels = results['img'].shape[2:]
        mosaic = np.full((2 * height, 2 * width, *channels), self.pad_val, dtype=results['img'].dtype)
        centre = tuple(int(np.random.uniform(*self.center_ratio_range) * side) for side in self.img_scale)
        for corner, patch in zip(CORNERS, patches, strict=True):
            image = patch['img']
            (x1, y1, x2, y2), (left, top, right, bottom) = self._mosaic_combine(corner, centre, image.shape[1::-1])
            mosaic[y1:y2, x1:x2] = image[top:bottom, left:right]
            patch['gt_bboxes'].translate_([x1 - left, y1 - top])
            if 'gt_keypoints' in patch:
                patch['gt_keypoints'].translate_([x1 - left, y1 - top])
            if 'gt_masks' in patch:
                patch['gt_masks'] = patch['gt_masks'].moved((x1 - left, y1 - top), *mosaic.shape[:2])
        boxes = results['gt_bboxes'].cat([patch['gt_bboxes'] for patch in patches])
        if self.bbox_clip_border:
            boxes.clip_(mosaic.shape[:2])
        labels, ignored = (
            np.concatenate([patch[key] for patch in patches]) for key in ('gt_bboxes_labels', 'gt_ignore_flags')
        )
        inside = slice(None) if self.bbox_clip_border else boxes.is_inside(mosaic.shape[:2]).numpy()
        if 'gt_keypoints' in results:
            points = Keypoints.cat([patch['gt_keypoints'] for patch in patches])
            points.clip_(mosaic.shape[:2])
            results = results | dict(gt_keypoints=points[inside])
        if 'gt_masks' in results:
            outlines = results['gt_masks'].cat([patch['gt_masks'] for patch in patches])
            results = results | dict(gt_masks=outlines.clipped(np.array([[0, 0, 2 * width, 2 * height]]))[inside])
        return results | dict(
            img=mosaic,
            img_shape=mosaic.shape,
            gt_bboxes=boxes[inside],
            gt_bboxes_labels=labels[inside],
            gt_ignore_flags=ignored[inside],
        )


def _with_own_boxes(results: dict) -> dict:
    """A copy with its own boxes; it shares the image, which is not modified."""
    kept = {key: value for key, value in results.items() if key != 'dataset'}
    moved = {key: results[key].clone() for key in ('gt_bboxes', 'gt_keypoints') if key in results}
    return kept | moved
