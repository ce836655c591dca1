# Only the two experts with the largest weights, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router=dict(top_k=2)))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
