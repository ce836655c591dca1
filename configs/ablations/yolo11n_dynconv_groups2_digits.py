# Grouped kernels, two groups; bare dynamic convolutions, on the digits.
_base_ = '../yolo11n_dynconv_digits.py'

option = dict(groups=2)
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
