"""Metrics; importing this registers them."""

from .coco_metric import DatasetCocoMetric

__all__ = ['DatasetCocoMetric']
