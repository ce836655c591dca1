# Placement: dynamic convolutions that lead to P4 (stride 16) only, on the digits.
_base_ = '../yolo11n_digits.py'

static, dynamic = dict(type='ConvModule'), dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=[static, static, dynamic, static]), neck=dict(downsample_cfg=[dynamic, static]))
