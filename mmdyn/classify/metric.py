"""Accuracy of the best classes, for any number of classes."""

from mmpretrain.evaluation import Accuracy
from mmyolo.registry import METRICS


@METRICS.register_module()
class TopAccuracy(Accuracy):
    """mmpretrain's ``Accuracy``, which fails where there are fewer classes than asked for.

    With three classes the accuracy of the best five is that of the best three, which is 100. Arguments are the same.

    Example:
        >>> import torch
        >>> metric = TopAccuracy(topk=(1, 5))
        >>> sample = dict(pred_score=torch.tensor([0.2, 0.7, 0.1]), gt_label=torch.tensor([0]))
        >>> metric.compute_metrics([sample])
        {'top1': 0.0, 'top5': 100.0}
    """

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Figures of all images, in percent.

        Args:
            results: What ``process`` keeps.
        """
        classes = len(results[0]['pred_score'])
        possible = TopAccuracy(topk=tuple(min(k, classes) for k in self.topk))
        found = super(TopAccuracy, possible).compute_metrics(results)
        return {f'top{k}': found[f'top{min(k, classes)}'] for k in self.topk}
