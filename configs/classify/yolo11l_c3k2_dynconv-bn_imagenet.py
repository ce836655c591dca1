# YOLO11-l for classification with DynamicConv in the bottlenecks, batch norm and SiLU after it as in the static classifier.
_base_ = './yolo11l_imagenet.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(block_cfg=dict(conv2_cfg=dynamic)))
