# Routers of Dynamic Convolution (2020): an MLP, and softmax whose temperature falls from 30 to 1, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

option = dict(conv_cfg=dict(router=dict(type='mlp', hidden=0.25, activation='softmax')))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
custom_hooks = [*_base_.custom_hooks, dict(type='TemperatureHook', begin=30.0, epochs=_base_.train_cfg.max_epochs / 2)]
