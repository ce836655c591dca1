# Routing by softmax instead of sigmoid, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router='softmax'))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
