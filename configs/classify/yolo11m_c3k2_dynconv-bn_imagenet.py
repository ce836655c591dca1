# YOLO11-m for classification with DynamicConv in the bottlenecks, batch norm and SiLU after it as in the static classifier.
_base_ = './yolo11m_imagenet.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(block_cfg=dict(conv2_cfg=dynamic)))
