# YOLO11-n with DynamicConv on the digits: what `make demo` trains.
_base_ = './yolo11n_digits.py'

dynamic = dict(type='DynamicConv', num_experts=4)
model = dict(backbone=dict(downsample_cfg=dynamic), neck=dict(downsample_cfg=dynamic))
