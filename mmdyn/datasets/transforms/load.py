"""Loading of an image of any number of channels, or of one that the data set keeps in a cache."""

from mmcv.transforms import LoadImageFromFile
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets.pixels import MAX_CHANNELS, read_pixels


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """``LoadImageFromFile`` for images of 1 to 4 channels and 16 bits; takes cached images of :class:`ArrayDataset`.

    Args:
        channels: Channels of an image, as in :func:`mmdyn.datasets.pixels.read_pixels`.
        to_float32: Keep 16 bits, as float32 from 0 to 255.
        backend_args: Where files come from, as in ``LoadImageFromFile``.

    Raises:
        ValueError: ``channels`` is not 1 to 4.

    Example:
        >>> load = TRANSFORMS.build(dict(type='LoadImage', channels=1))
        >>> load(dict(img_path=str(digits_image)))['img'].shape
        (320, 320, 1)
    """

    def __init__(self, channels: int = 3, to_float32: bool = False, backend_args: dict | None = None) -> None:
        if channels not in range(1, MAX_CHANNELS + 1):
            raise ValueError(f'channels must be 1 to {MAX_CHANNELS}, got {channels}')
        super().__init__(to_float32=to_float32, backend_args=backend_args)
        self.channels = channels

    def transform(self, results: dict) -> dict:
        """Load the image of ``img_path``, or take the one that is in the cache, which is resized already.

        Raises:
            UserError: The file is missing, is not an image, or has another number of channels.
        """
        cached = results.pop('cached_image', None)
        if cached is not None:
            results['img'] = cached.copy()  # the cache stays as it is
            results['size_before_cache'] = results['height'], results['width']
            results['ori_shape'] = results['size_before_cache']
        else:
            results['img'] = read_pixels(results['img_path'], self.channels, self.to_float32, self.backend_args)
            results['ori_shape'] = results['img'].shape[:2]
        results['img_shape'] = results['img'].shape[:2]
        return results
