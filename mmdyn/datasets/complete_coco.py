"""COCO's API, as its evaluator needs it: from annotations that are in memory, or from a file that leaves things out."""

from mmdet.datasets.api_wrappers import COCO

from mmdyn.annotations import Annotations


class CompleteCOCO(COCO):
    """``mmdet``'s COCO API; ``area`` defaults to that of the box, also where it is zero, ``iscrowd`` to no."""

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
