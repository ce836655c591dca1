"""Accuracy of the best classes, for any number of classes."""

from collections.abc import Sequence

import numpy as np
import torch
from mmpretrain.evaluation import Accuracy
from mmyolo.registry import METRICS

KEPT_CLASSES = 5  # of every image, for a report


@METRICS.register_module()
class TopAccuracy(Accuracy):
    """mmpretrain's ``Accuracy`` as shares from 0 to 1, like AP, for any number of classes.

    With three classes the accuracy of the best five is that of the best three, which is 1. ``evaluations`` keeps the
    five best classes of every image, for the report of a run. Arguments are the same but ``thrs``.

    Example:
        >>> import torch
        >>> metric = TopAccuracy(topk=(1, 5))
        >>> sample = dict(pred_score=torch.tensor([0.2, 0.7, 0.1]), gt_label=torch.tensor([0]))
        >>> metric.compute_metrics([sample])
        {'top1': 0.0, 'top5': 1.0}
    """

    def __init__(self, topk: int | Sequence[int] = (1, 5), **kwargs) -> None:
        if 'thrs' in kwargs:
            raise ValueError('TopAccuracy has no thresholds of scores: omit thrs, or take mmpretrain.Accuracy')
        super().__init__(topk, **kwargs)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Figures of all images.

        Args:
            results: What ``process`` keeps.
        """
        scores = torch.stack([result['pred_score'].float().cpu() for result in results])
        best = scores.topk(min(KEPT_CLASSES, scores.shape[1]))
        labels = np.array([int(result['gt_label']) for result in results])
        self.evaluations = dict(scores=best.values.numpy(), predicted=best.indices.numpy(), labels=labels)
        classes = scores.shape[1]
        possible = TopAccuracy(topk=tuple(min(k, classes) for k in self.topk))
        found = super(TopAccuracy, possible).compute_metrics(results)
        return {f'top{k}': found[f'top{min(k, classes)}'] / 100 for k in self.topk}
