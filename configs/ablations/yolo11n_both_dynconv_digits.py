# Placement: the strided convolutions and the second one of every bottleneck are dynamic, bare as published; on the digits.
_base_ = '../yolo11n_dynconv_digits.py'

block = dict(type='C3k2_DynamicConv', num_experts=4)
model = dict(backbone=dict(block_cfg=block), neck=dict(block_cfg=block))
