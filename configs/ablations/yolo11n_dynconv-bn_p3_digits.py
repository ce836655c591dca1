# Placement: dynamic convolutions that lead to P3 (stride 8) only, on the digits.
_base_ = '../yolo11n_digits.py'

static, dynamic = dict(type='ConvModule'), dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=[static, dynamic, static, static]))
