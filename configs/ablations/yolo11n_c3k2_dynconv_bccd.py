# Placement: the second convolution of every bottleneck is dynamic, bare as published; on BCCD.
_base_ = '../yolo11n_bccd.py'

block = dict(type='C3k2_DynamicConv', num_experts=4)
model = dict(backbone=dict(block_cfg=block), neck=dict(block_cfg=block))
