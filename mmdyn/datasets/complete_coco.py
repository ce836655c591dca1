"""COCO API of annotations in memory, or of a file without ``area`` or ``iscrowd``, which many exporters omit."""

from mmdet.datasets.api_wrappers import COCO

from mmdyn.annotations import Annotations


class CompleteCOCO(COCO):
    """``mmdet``'s COCO API; a missing or zero ``area`` becomes that of the box, a missing ``iscrowd`` becomes 0."""

    @classmethod
    def of(cls, annotations: Annotations) -> 'CompleteCOCO':
        """The API of annotations that were read already."""
        api = cls()
        api.dataset = annotations.as_coco()
        api.createIndex()
        api.img_ann_map, api.cat_img_map = api.imgToAnns, api.catToImgs
        return api

    def createIndex(self) -> None:
        """Complete the annotations, then index them."""
        for annotation in self.dataset['annotations']:
            if not annotation.get('area') or annotation['area'] < 0:
                annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
            annotation.setdefault('iscrowd', 0)
        super().createIndex()
