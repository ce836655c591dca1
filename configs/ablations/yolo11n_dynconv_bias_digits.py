# Every expert has a bias of its own, mixed as the kernels are; bare dynamic convolutions, on the digits.
_base_ = '../yolo11n_dynconv_digits.py'

option = dict(bias=True)
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
