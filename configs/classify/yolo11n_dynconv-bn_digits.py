# YOLO11-n for classification with DynamicConv, batch norm and SiLU after it, on crops of one digit.
_base_ = './yolo11n_digits.py'

model = dict(backbone=dict(downsample_cfg=dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))))
