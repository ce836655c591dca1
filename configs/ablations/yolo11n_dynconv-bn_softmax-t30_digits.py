# Routing by softmax with a temperature of 30, nearly uniform, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router=dict(activation='softmax', temperature=30.0)))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
