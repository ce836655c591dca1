# YOLO11-n with DynamicConv: the strided convolutions of stages 1-4 and of the neck, bare as published (no BN, no activation).
_base_ = './yolo11n_dota.py'

dynamic = dict(type='DynamicConv', num_experts=4)
model = dict(backbone=dict(downsample_cfg=dynamic), neck=dict(downsample_cfg=dynamic))
