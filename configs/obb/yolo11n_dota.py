# YOLO11-n for oriented boxes, static, on DOTA.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/yolo11_obb.py', '../_base_/dota.py', '../_base_/schedule_600e.py'
]

train_cfg = dict(max_epochs=200)
default_hooks = dict(checkpoint=dict(save_best='coco/oriented_mAP'))
