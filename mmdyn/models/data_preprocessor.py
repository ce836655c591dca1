"""Preprocessing of a batch: on the device, channels in order, normalised."""

from mmyolo.models.data_preprocessors import YOLOv5DetDataPreprocessor
from mmyolo.registry import MODELS


@MODELS.register_module()
class YOLO11DataPreprocessor(YOLOv5DetDataPreprocessor):
    """``YOLOv5DetDataPreprocessor`` that passes on how many objects each image has, and oriented boxes.

    Arguments are the same. The losses then ask the device for nothing, see :mod:`mmdyn.models.assignment`.

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
        samples = data['data_samples'] if training else {}
        result = super().forward(data, training)
        if 'counts' in samples:
            result['data_samples']['counts'] = samples['counts']
        if 'oriented_boxes' in samples:
            result['data_samples']['oriented_boxes'] = self.cast_data(samples['oriented_boxes'])
        return result
