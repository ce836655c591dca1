"""COCO API for annotation files without ``area`` or ``iscrowd``, which many exporters omit."""

from mmdet.datasets.api_wrappers import COCO


class CompleteCOCO(COCO):
    """``mmdet``'s COCO API; a missing or zero ``area`` becomes that of the box, a missing ``iscrowd`` becomes 0."""

    def createIndex(self) -> None:
        """Complete the annotations, then index them."""
        for annotation in self.dataset['annotations']:
            if not annotation.get('area') or annotation['area'] < 0:
                annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
            annotation.setdefault('iscrowd', 0)
        super().createIndex()
