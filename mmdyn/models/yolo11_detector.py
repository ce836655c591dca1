"""The detector: MMYOLO's, which can tell its dynamic convolutions where an image is padded."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from mmyolo.models.detectors import YOLODetector
from mmyolo.registry import MODELS
from torch import Tensor

from mmdyn.layers.global_mean import valid_areas

DETECTORS = ('YOLO11Detector', 'YOLODetector')  # names of the detector in configs, and in those of MMYOLO


@MODELS.register_module()
class YOLO11Detector(YOLODetector):
    """``YOLODetector`` with one option more.

    Args:
        pool_valid_area: In tests, routers pool over the part of the map that is image, without the padding of
            letterboxes. The routing of an image then hardly depends on the shape that it is padded to, which differs
            between a batch of rectangles and squares. Exported graphs pool over the whole map.
        **kwargs: As in ``YOLODetector``.

    Example:
        >>> from mmdyn.models import build_model
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_dynconv_coco')
        >>> config.model.pool_valid_area = True
        >>> build_model(config).pool_valid_area
        True
    """

    def __init__(self, *args, pool_valid_area: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.pool_valid_area = pool_valid_area

    def forward(self, inputs: Tensor, data_samples=None, mode: str = 'tensor'):
        """As in ``YOLODetector``; data samples with ``pad_param`` say where the padding is."""
        areas = image_areas(data_samples, inputs) if self.pool_valid_area and mode != 'loss' else None
        with nullcontext() if areas is None else valid_areas(areas):
            return super().forward(inputs, data_samples, mode)


def image_areas(samples: Sequence | None, inputs: Tensor) -> Tensor | None:
    """Where in each input the image is.

    Args:
        samples: Data samples with ``pad_param``, the pixels of padding at top, bottom, left and right.
        inputs: The batch, (B, 3, H, W); it may be larger than the padded images.

    Returns:
        Top, bottom, left and right border as fractions of height and width, (B, 4); None if nothing is padded.
    """
    height, width = inputs.shape[2:]
    areas = []
    for sample in samples or ():
        padding = sample.metainfo.get('pad_param')
        top, bottom, left, right = (0.0,) * 4 if padding is None else map(float, padding)
        rows, columns = sample.metainfo.get('img_shape', (height, width))[:2]
        areas.append([top / height, (rows - bottom) / height, left / width, (columns - right) / width])
    whole = [0.0, 1.0, 0.0, 1.0]
    return None if all(area == whole for area in areas) else torch.tensor(areas, device=inputs.device)
