# Routers of two layers with as many hidden channels as the input has, as in ParameterNet's text, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router=dict(type='mlp')))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
