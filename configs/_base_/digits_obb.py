# The digits, turned by up to 45 degrees, with the smallest rectangles around their ink.
_base_ = './digits.py'

turned = dict(corners=True, turn=45, data_root='data/digits_turned/')
load = [_base_.load[0], dict(type='LoadOrientedBoxes', with_mask=True)]
mosaic = dict(_base_.mosaic, pre_transform=load)
affine = dict(_base_.affine, min_area_ratio=0.01)
finish = [_base_.colour, dict(type='OrientBoxes'), _base_.pack]
train_dataloader = dict(dataset=dict(turned, pipeline=[*load, mosaic, affine, *finish]))
last_epochs_pipeline = [*load, *_base_.letterbox, dict(affine, border=(0, 0)), *finish]
val_dataloader = dict(dataset=turned)
test_dataloader = val_dataloader
val_evaluator = dict(metric='oriented')
test_evaluator = val_evaluator
