# FDConv: four bands of frequencies of one kernel as experts, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(_delete_=True, type='FDConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
