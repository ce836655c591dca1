"""Steps of a pipeline for oriented boxes: loading corners, and making the boxes of them in the end."""

import numpy as np
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets.oriented import OrientedOutlines
from mmdyn.datasets.outlines import parts_of

from .outlines import LoadOutlines


@TRANSFORMS.register_module()
class LoadOrientedBoxes(LoadOutlines):
    """``LoadAnnotations`` with the corners of every object: of a quadrilateral, a polygon or a mask.

    Arguments are those of ``LoadAnnotations``.

    Example:
        >>> load = TRANSFORMS.build(dict(type='LoadOrientedBoxes'))
        >>> one = dict(ignore_flag=0, bbox=[2, 2, 9, 9], bbox_label=0, mask=[[2, 5, 5, 2, 9, 6, 6, 9]])
        >>> load(dict(instances=[one], ori_shape=(20, 30)))['gt_masks'].points.shape
        (1, 4, 2)
    """

    def _load_masks(self, results: dict) -> None:
        """Read the corners; the data set leaves out objects without."""
        height, width = results['ori_shape'][:2]
        masks = [each['mask'] for each in results['instances'] if not each['ignore_flag']]
        points = [np.concatenate(parts_of(mask, height, width, results.get('img_path', ''))) for mask in masks]
        results['gt_masks'] = OrientedOutlines.of(points, height, width)


@TRANSFORMS.register_module()
class OrientBoxes:
    """Make an oriented box of the corners of every object, five numbers as in :mod:`mmdyn.datasets.oriented`.

    Example:
        >>> outlines = OrientedOutlines.of([np.array([[2, 2], [8, 2], [8, 4], [2, 4.0]])], 20, 20)
        >>> TRANSFORMS.build(dict(type='OrientBoxes'))(dict(gt_masks=outlines))['gt_oriented_boxes'].tolist()
        [[5.0, 3.0, 6.0, 2.0, 0.0]]
    """

    def __call__(self, results: dict) -> dict:
        """Replace ``gt_masks`` by ``gt_oriented_boxes``, (n, 5) float32."""
        boxes = results.pop('gt_masks').oriented_boxes()
        return results | dict(gt_oriented_boxes=boxes.astype(np.float32))
