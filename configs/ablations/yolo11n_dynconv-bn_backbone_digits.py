# Placement: dynamic convolutions in the backbone only, on the digits.
_base_ = '../yolo11n_digits.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=dynamic))
