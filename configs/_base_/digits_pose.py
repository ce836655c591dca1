# The digits with five keypoints each: the extremes of the ink, and its centre.
_base_ = './digits.py'
keypoints = (5, 3)
sigmas = (0.05, ) * 5

posed = dict(keypoints=keypoints, metainfo=dict(sigmas=sigmas))
load = [_base_.load[0], dict(type='LoadKeypoints')]
mosaic = dict(_base_.mosaic, pre_transform=load)
finish = [_base_.colour, _base_.pack]
train_dataloader = dict(dataset=dict(posed, pipeline=[*load, mosaic, _base_.affine, *finish]))
last_epochs_pipeline = [*load, *_base_.letterbox, dict(_base_.affine, border=(0, 0)), *finish]
val_dataloader = dict(dataset=posed)
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'keypoints'])
test_evaluator = val_evaluator
