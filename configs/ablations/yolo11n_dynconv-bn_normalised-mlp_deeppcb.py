# Routers of two layers see features that are standardised by running statistics, on DeepPCB.
_base_ = '../yolo11n_dynconv-bn_deeppcb.py'

option = dict(conv_cfg=dict(router=dict(type='mlp', normalise=True)))
model = dict(backbone=dict(downsample_cfg=option), neck=dict(downsample_cfg=option))
