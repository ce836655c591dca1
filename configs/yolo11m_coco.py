# YOLO11-m, static: wide, C3k in every block, last stage capped at 512.
_base_ = './yolo11s_coco.py'

scale = dict(deepen_factor=0.5, widen_factor=1.0, c3k=True)
model = dict(
    backbone=dict(scale, last_stage_out_channels=512),
    neck=dict(scale, in_channels=[512, 512, 512], out_channels=[256, 512, 512]),
    bbox_head=dict(head_module=dict(widen_factor=1.0, in_channels=[256, 512, 512])))

copy_paste = [dict(step, prob=0.4) for step in _base_.copy_paste]
mixup = dict(
    _base_.mixup, prob=0.15, pre_transform=[*_base_.load, _base_.mosaic, *copy_paste, _base_.affine])
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, _base_.mosaic, *copy_paste, _base_.affine, mixup, *_base_.finish]))
