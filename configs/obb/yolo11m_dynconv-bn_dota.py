# YOLO11-m with DynamicConv, batch norm and SiLU after it as in the static detector, whose weights can start it (tools/upcycle.py).
_base_ = './yolo11m_dota.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=dynamic), neck=dict(downsample_cfg=dynamic))
