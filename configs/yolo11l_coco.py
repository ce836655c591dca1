# YOLO11-l, static: deeper than m.
_base_ = './yolo11m_coco.py'

scale = dict(deepen_factor=1.0, widen_factor=1.0)
model = dict(backbone=scale, neck=scale, bbox_head=dict(head_module=dict(widen_factor=1.0)))

copy_paste = [dict(step, prob=0.5) for step in _base_.copy_paste]
mixup = dict(
    _base_.mixup, pre_transform=[*_base_.load, _base_.mosaic, *copy_paste, _base_.affine])
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, _base_.mosaic, *copy_paste, _base_.affine, mixup, *_base_.finish]))
