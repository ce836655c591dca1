# Expert dropout: in training, a sample does without an expert in one of ten cases; on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(expert_dropout=0.1))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
