# COCO 2017 with the outlines of its objects, which are carried through all steps; boxes follow them, and objects can be pasted.
_base_ = './coco.py'

load = [_base_.load[0], dict(type='LoadOutlines', with_mask=True)]
mosaic = dict(_base_.mosaic, pre_transform=load)
copy_paste = [dict(type='CopyPaste', prob=0.1)]
affine = dict(_base_.affine, min_area_ratio=0.01)
mixup = dict(_base_.mixup, pre_transform=[*load, mosaic, *copy_paste, affine])
train_dataloader = dict(
    dataset=dict(outlines=True, pipeline=[*load, mosaic, *copy_paste, affine, mixup, *_base_.finish]))
last_epochs_pipeline = [*load, *_base_.letterbox, dict(affine, border=(0, 0)), *_base_.finish]
