# YOLO11-m for classification with DynamicConv, batch norm and SiLU after it as in the static classifier, whose weights can start it (tools/upcycle.py).
_base_ = './yolo11m_imagenet.py'

model = dict(backbone=dict(downsample_cfg=dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))))
