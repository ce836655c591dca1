# Routers see features that are standardised by running statistics, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router=dict(normalise=True)))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
