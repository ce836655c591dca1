# YOLO11-n for segmentation, static: boxes and masks. The other scales and the dynamic variants are the same diffs as in detection.
_base_ = ['../_base_/default_runtime.py', '../_base_/yolo11.py', '../_base_/coco_segment.py', '../_base_/schedule_600e.py']

model = dict(bbox_head=dict(type='YOLO11SegmentHead', head_module=dict(type='YOLO11SegmentHeadModule')))
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP'))
