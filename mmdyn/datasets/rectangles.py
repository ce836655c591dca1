"""Rectangles: validation images with minimal padding for the stride, and batches of images with the same rectangle.

MMYOLO's ``BatchShapePolicy`` gives a batch the rectangle of its widest image, so the padding of an image, and with it
its boxes, depends on the batch and on the number of processes. Here it depends on the image alone.
"""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import DATA_SAMPLERS
from mmyolo.datasets.utils import BatchShapePolicy
from mmyolo.registry import TASK_UTILS
from torch.utils.data import BatchSampler, Sampler


@TASK_UTILS.register_module()
class ImageShapePolicy(BatchShapePolicy):
    """Sort images by aspect ratio, and pad each to the rectangle that it would have at batch size 1.

    Args:
        img_size: Pixels of the long side.
        size_divisor: Height and width are multiples of this.
        extra_pad_ratio: Added to both before they are rounded up, in units of ``size_divisor``.
        batch_size: Unused, accepted for compatibility with ``BatchShapePolicy``.

    Example:
        >>> policy = ImageShapePolicy(img_size=640)
        >>> policy([dict(width=1280, height=720)])[0]['batch_shape'].tolist()
        [384, 672]
    """

    def __init__(
        self, img_size: int = 640, size_divisor: int = 32, extra_pad_ratio: float = 0.5, batch_size: int | None = None
    ) -> None:
        super().__init__(1, img_size, size_divisor, extra_pad_ratio)
        self.batch_size = 1  # the parent multiplies by the number of processes


@DATA_SAMPLERS.register_module()
class SameShapeBatchSampler(BatchSampler):
    """Batches of consecutive images with the same rectangle; images without a rectangle are batched together.

    Args:
        sampler: Sampler of the indices; its ``dataset`` has the rectangles.
        batch_size: Maximum batch size.

    Raises:
        ValueError: The sampler has no data set with ``get_data_info``.

    Example:
        >>> from torch.utils.data import SequentialSampler
        >>> class Images(list):
        ...     get_data_info = list.__getitem__
        >>> images = Images(dict(batch_shape=shape) for shape in [(384, 672), (384, 672), (672, 384)])
        >>> sampler = SequentialSampler(images)
        >>> sampler.dataset = images
        >>> list(SameShapeBatchSampler(sampler, batch_size=2))
        [[0, 1], [2]]
    """

    def __init__(self, sampler: Sampler, batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self._length: tuple[int, int] | None = None
        dataset: Any = getattr(sampler, 'dataset', None)
        if not hasattr(dataset, 'get_data_info'):
            raise ValueError(
                f'SameShapeBatchSampler needs the rectangles of the images, and {type(sampler).__name__} over '
                f'{type(dataset).__name__} does not give them: set batch_sampler=None in the data loader'
            )
        shapes = (dataset.get_data_info(index).get('batch_shape', ()) for index in range(len(dataset)))
        self.shapes = [tuple(int(side) for side in shape) for shape in shapes]

    def __iter__(self) -> Iterator[list[int]]:
        """Yield a batch when it is full or the rectangle changes."""
        batch: list[int] = []
        for index in self.sampler:
            if batch and (len(batch) == self.batch_size or self.shapes[index] != self.shapes[batch[-1]]):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def __len__(self) -> int:
        epoch = getattr(self.sampler, 'epoch', 0)  # hooks ask in every iteration
        if self._length is None or self._length[0] != epoch:
            self._length = epoch, sum(1 for _ in self)
        return self._length[1]
