# Placement: ODConv as the second convolution of every bottleneck, batch norm and SiLU after it; on the digits.
_base_ = '../yolo11n_digits.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='ODConv', num_experts=1))
model = dict(backbone=dict(block_cfg=dict(conv2_cfg=dynamic)), neck=dict(block_cfg=dict(conv2_cfg=dynamic)))
