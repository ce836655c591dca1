# YOLO11-m with C3k2_DynamicConv: the second convolution of every bottleneck, bare as published (no BN, no activation).
_base_ = './yolo11m_dota.py'

dynamic = dict(type='C3k2_DynamicConv', num_experts=4)
model = dict(backbone=dict(block_cfg=dynamic), neck=dict(block_cfg=dynamic))
