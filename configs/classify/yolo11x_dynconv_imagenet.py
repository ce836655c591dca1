# YOLO11-x for classification with DynamicConv: the strided convolutions of stages 1-4, bare as published (no BN, no activation).
_base_ = './yolo11x_imagenet.py'

model = dict(backbone=dict(downsample_cfg=dict(type='DynamicConv', num_experts=4)))
