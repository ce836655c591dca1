# Placement: dynamic convolutions in the neck only, on the digits.
_base_ = '../yolo11n_digits.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(neck=dict(downsample_cfg=dynamic))
