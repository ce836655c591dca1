# 1 expert instead of 4, on BCCD.
_base_ = '../yolo11n_dynconv-bn_bccd.py'

experts = dict(conv_cfg=dict(num_experts=1))
model = dict(backbone=dict(downsample_cfg=experts), neck=dict(downsample_cfg=experts))
