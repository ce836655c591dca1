"""COCO API for annotation files that leave out what can be derived: many exporters write neither area nor iscrowd."""

from mmdet.datasets.api_wrappers import COCO


class CompleteCOCO(COCO):
    """``mmdet``'s COCO API; ``area`` defaults to that of the box, also where it is zero, ``iscrowd`` to no."""

    def createIndex(self) -> None:
        """Complete the annotations, then index them."""
        for annotation in self.dataset['annotations']:
            if not annotation.get('area') or annotation['area'] < 0:
                annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
            annotation.setdefault('iscrowd', 0)
        super().createIndex()
