# YOLO11-s for classification with C3k2_DynamicConv: the second convolution of every bottleneck, bare as published (no BN, no activation).
_base_ = './yolo11s_imagenet.py'

model = dict(backbone=dict(block_cfg=dict(type='C3k2_DynamicConv', num_experts=4)))
