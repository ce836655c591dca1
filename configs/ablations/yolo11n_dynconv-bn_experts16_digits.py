# 16 experts instead of 4, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

experts = dict(conv_cfg=dict(num_experts=16))
model = dict(backbone=dict(downsample_cfg=experts), neck=dict(downsample_cfg=experts))
