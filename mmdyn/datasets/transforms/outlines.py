"""Steps of a pipeline for outlines: loading, pasting copies, and drawing masks."""

import cv2
import numpy as np
from mmyolo.datasets.transforms import LoadAnnotations
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets.outlines import Outlines, parts_of


@TRANSFORMS.register_module()
class LoadOutlines(LoadAnnotations):
    """``LoadAnnotations`` with one outline of every object, from polygons or run-length codes.

    Arguments are those of ``LoadAnnotations``.

    Example:
        >>> load = TRANSFORMS.build(dict(type='LoadOutlines'))
        >>> one = dict(ignore_flag=0, bbox=[2, 2, 9, 9], bbox_label=0, mask=[[2, 2, 9, 2, 9, 9]])
        >>> load(dict(instances=[one], ori_shape=(20, 30)))['gt_masks'].boxes().tolist()
        [[2.0, 2.0, 9.0, 9.0]]
    """

    def __init__(self, with_mask: bool = True, **kwargs) -> None:
        super().__init__(with_bbox=True, with_mask=with_mask, **kwargs)

    def _load_masks(self, results: dict) -> None:
        """Read the outlines; the data set leaves out objects without one."""
        height, width = results['ori_shape'][:2]
        image = results.get('img_path', '')
        instances = [each for each in results['instances'] if not each['ignore_flag']]
        polygons = [self._one_polygon(parts_of(i['mask'], height, width, image), i['bbox']) for i in instances]
        results['gt_masks'] = Outlines.of(polygons, height, width)

    def _one_polygon(self, parts: list[np.ndarray], box: list[float]) -> np.ndarray:
        """Parts of an object, each (p, 2), joined to one polygon; the box where there is none, as of an empty mask."""
        if len(parts) > 1:
            return self.merge_multi_segment([part.reshape(-1) for part in parts])[0].reshape(-1, 2)
        left, top, right, bottom = box
        return parts[0] if parts else np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


@TRANSFORMS.register_module()
class DrawMasks:
    """Draw the outlines as one plane, in which every pixel of a quarter of the image has the number of its object.

    MMYOLO's ``Polygon2Mask`` does this with 8 bits: from 128 objects its numbers are wrong, and from 256 on it fails.

    Example:
        >>> outlines = Outlines.of([np.array([[0, 0], [15, 0], [15, 15], [0, 15.0]])], 32, 32)
        >>> TRANSFORMS.build(dict(type='DrawMasks'))(dict(gt_masks=outlines))['gt_planes'][:5, 0].tolist()
        [1, 1, 1, 1, 0]
    """

    def __call__(self, results: dict) -> dict:
        """Replace ``gt_masks`` by ``gt_planes``, (h, w)."""
        return results | dict(gt_planes=results.pop('gt_masks').plane())


@TRANSFORMS.register_module()
class CopyPaste:
    """Paste mirrored copies of objects of an image into it (https://arxiv.org/abs/2012.07177).

    As in the original: copies that would cover less than 30 % of every object are candidates, and the share ``prob`` of
    them is pasted, those that cover least first. MMYOLO's ``YOLOv5CopyPaste`` draws them at random.

    Args:
        prob: Share of the candidates, 0 to 1.

    Raises:
        ValueError: ``prob`` is not from 0 to 1.

    Example:
        >>> TRANSFORMS.build(dict(type='CopyPaste', prob=0.1)).prob
        0.1
    """

    def __init__(self, prob: float) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be from 0 to 1, got {prob}')
        self.prob = prob

    def __call__(self, results: dict) -> dict:
        """Paste copies; the image, boxes, labels and outlines are changed."""
        outlines, boxes = results['gt_masks'], results['gt_bboxes']
        if not len(outlines) or not self.prob:
            return results
        mirrored = boxes.clone()
        mirrored.flip_(results['img'].shape[:2])
        covered = _covered(mirrored.numpy(), boxes.numpy()).max(1)
        candidates = np.flatnonzero(covered < 0.3)
        chosen = candidates[np.argsort(covered[candidates])][: round(self.prob * len(candidates))]
        if not len(chosen):
            return results
        copies = outlines.flip()[chosen]
        where = np.zeros(results['img'].shape[:2], np.uint8)
        for points in copies.points:
            cv2.drawContours(where, [points.astype(np.int32)], -1, 1, cv2.FILLED)
        image = results['img'].copy()
        image[where > 0] = image[:, ::-1][where > 0]
        return results | dict(
            img=image,
            gt_bboxes=boxes.cat([boxes, mirrored[chosen]]),
            gt_masks=outlines.cat([outlines, copies]),
            **{
                key: np.concatenate([results[key], results[key][chosen]])
                for key in ('gt_bboxes_labels', 'gt_ignore_flags')
            },
        )


def _covered(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of each of the ``others`` (m, 4) that each of the boxes (n, 4) covers, (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return (high - low).clip(0).prod(2) / (areas + 1e-7)
