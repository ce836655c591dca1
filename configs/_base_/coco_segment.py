# COCO 2017 for segmentation: the outlines are drawn as masks in the end.
_base_ = './coco_outlines.py'

finish = [_base_.colour, _base_.flip, dict(type='DrawMasks'), _base_.pack]
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, _base_.mosaic, *_base_.copy_paste, _base_.affine, _base_.mixup, *finish]))
last_epochs_pipeline = [*_base_.load, *_base_.letterbox, dict(_base_.affine, border=(0, 0)), *finish]
val_dataloader = dict(dataset=dict(outlines=True))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
