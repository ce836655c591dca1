# YOLO11-s, static: wider than n, and stronger augmentation.
_base_ = './yolo11n_coco.py'

scale = dict(deepen_factor=0.5, widen_factor=0.5)
model = dict(backbone=scale, neck=scale, bbox_head=dict(head_module=dict(widen_factor=0.5)))

affine = dict(_base_.affine, scaling_ratio_range=(0.1, 1.9))
copy_paste = [dict(step, prob=0.15) for step in _base_.copy_paste]
mixup = dict(_base_.mixup, prob=0.05, pre_transform=[*_base_.load, _base_.mosaic, *copy_paste, affine])
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, _base_.mosaic, *copy_paste, affine, mixup, *_base_.finish]))
last_epochs_pipeline = [*_base_.load, *_base_.letterbox, dict(affine, border=(0, 0)), *_base_.finish]
