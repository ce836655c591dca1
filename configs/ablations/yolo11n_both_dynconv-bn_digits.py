# Placement: the strided convolutions and the second one of every bottleneck, batch norm and SiLU after them; on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

dynamic = _base_.dynamic
model = dict(backbone=dict(block_cfg=dict(conv2_cfg=dynamic)), neck=dict(block_cfg=dict(conv2_cfg=dynamic)))
