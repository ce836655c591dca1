# YOLO11-x with DynamicConv in the bottlenecks, batch norm and SiLU after it as in the static detector, whose weights can start it.
_base_ = './yolo11x_dota.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(block_cfg=dict(conv2_cfg=dynamic)), neck=dict(block_cfg=dict(conv2_cfg=dynamic)))
