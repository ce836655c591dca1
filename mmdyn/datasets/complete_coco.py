"""COCO API for annotation files that leave out what can be derived: many exporters write neither area nor iscrowd."""

from mmdet.datasets.api_wrappers import COCO


class CompleteCOCO(COCO):
    """``mmdet``'s COCO API; an annotation without ``area`` gets that of its box, one without ``iscrowd`` is none."""

    def createIndex(self) -> None:
        """Complete the annotations, then index them."""
        for annotation in self.dataset['annotations']:
            annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
            annotation.setdefault('iscrowd', 0)
        super().createIndex()
