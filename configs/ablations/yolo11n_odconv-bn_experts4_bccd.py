# ODConv with four experts, on BCCD.
_base_ = '../yolo11n_dynconv-bn_bccd.py'

option = dict(conv_cfg=dict(_delete_=True, type='ODConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
