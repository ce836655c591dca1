"""Keypoints of objects through the steps of a pipeline.

Subclass of MMYOLO's structure, which flips horizontally only and leaves points outside of an image where they are.
"""

from collections.abc import Sequence

import torch
from mmyolo.datasets.transforms.keypoint_structure import Keypoints as MMYOLOKeypoints
from torch import Tensor

SIDES = (('left', 'right'), ('right', 'left'))


class Keypoints(MMYOLOKeypoints):
    """Positions in pixels (n, K, 2) and visibility (n, K): 0 not labelled, 1 hidden, 2 visible.

    Args:
        keypoints: Positions.
        keypoints_visible: Visibility.
        flip_indices: Which keypoint each becomes in a mirrored image, of length K; None forbids flips.
        **kwargs: As in MMYOLO's class.

    Example:
        >>> points = Keypoints(torch.tensor([[[2.0, 3], [9, 30]]]), torch.tensor([[2.0, 2]]), flip_indices=[1, 0])
        >>> points.flip_((20, 10))
        >>> points.clip_((20, 10))
        >>> points.keypoints.tolist(), points.keypoints_visible.tolist()
        ([[[1.0, 20.0], [8.0, 3.0]]], [[0.0, 2.0]])
    """

    keypoints: Tensor
    keypoints_visible: Tensor

    def flip_(self, img_shape: tuple[int, int], direction: str = 'horizontal') -> None:
        """Mirror in place, ``'horizontal'``, ``'vertical'`` or ``'diagonal'`` (both, which swaps nothing)."""
        for axis, wanted in ((0, direction != 'vertical'), (1, direction != 'horizontal')):
            if wanted:
                self.keypoints[..., axis] = img_shape[1 - axis] - self.keypoints[..., axis]
        if direction != 'diagonal':
            self.keypoints = self.keypoints[:, self.flip_indices]
            self.keypoints_visible = self.keypoints_visible[:, self.flip_indices]

    def clip_(self, img_shape: tuple[int, int]) -> None:
        """Move points into an image (height, width) in place; those that were outside are not labelled then."""
        size = self.keypoints.new_tensor([img_shape[1], img_shape[0]])
        outside = ((self.keypoints < 0) | (self.keypoints > size)).any(-1)
        self.keypoints_visible = torch.where(outside, 0.0, self.keypoints_visible)
        self.keypoints = torch.minimum(self.keypoints.clamp(min=0), size)


def mirrored(names: Sequence[str]) -> list[int] | None:
    """Which keypoint each becomes in a mirrored image, by the words left and right in their names.

    Args:
        names: Names of the keypoints.

    Returns:
        Their positions; None if no name has such a word, or the other one is missing.

    Example:
        >>> mirrored(['nose', 'left_eye', 'right_eye'])
        [0, 2, 1]
        >>> mirrored(['top', 'right', 'bottom', 'left', 'centre'])
        [0, 3, 2, 1, 4]
        >>> mirrored(['nose', 'left_eye'])
    """
    places = {name: i for i, name in enumerate(names)}
    swapped = []
    for name in names:
        word, other = next(((word, other) for word, other in SIDES if word in name), ('', ''))
        swapped.append(places.get(name.replace(word, other) if word else name))
    if None in swapped or swapped == list(range(len(names))):
        return None
    return swapped  # type: ignore[return-value]
