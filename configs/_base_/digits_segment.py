# The digits with their outlines, which are whole where another digit covers them.
_base_ = './digits.py'

load = [_base_.load[0], dict(type='LoadOutlines', with_mask=True)]
mosaic = dict(_base_.mosaic, pre_transform=load)
affine = dict(_base_.affine, min_area_ratio=0.01)
finish = [_base_.colour, dict(type='DrawMasks'), _base_.pack]
train_dataloader = dict(dataset=dict(outlines=True, pipeline=[*load, mosaic, affine, *finish]))
last_epochs_pipeline = [*load, *_base_.letterbox, dict(affine, border=(0, 0)), *finish]
val_dataloader = dict(dataset=dict(outlines=True))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
