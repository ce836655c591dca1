"""Preprocessing of a batch: on the device, channels in order, normalised."""

from mmyolo.models.data_preprocessors import YOLOv5DetDataPreprocessor
from mmyolo.registry import MODELS


@MODELS.register_module()
class YOLO11DataPreprocessor(YOLOv5DetDataPreprocessor):
    """``YOLOv5DetDataPreprocessor`` that passes on how many objects each image has; arguments are the same.

    The losses then ask the device for nothing, see :mod:`mmdyn.models.assignment`.

    Example:
        >>> YOLO11DataPreprocessor(mean=[0.0] * 3, std=[255.0] * 3).std.flatten().tolist()
        [255.0, 255.0, 255.0]
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data: What :func:`mmdyn.datasets.collate.collate_targets` returns in training, else what
                ``pseudo_collate`` does.
            training: Whether it is for training.
        """
        counts = data['data_samples'].get('counts') if training else None
        result = super().forward(data, training)
        if counts is not None:
            result['data_samples']['counts'] = counts
        return result
