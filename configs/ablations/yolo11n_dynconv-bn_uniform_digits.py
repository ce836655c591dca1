# The parameters of four experts without routing: all weights equal, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router=dict(type='uniform')))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
