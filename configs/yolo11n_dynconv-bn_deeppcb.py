# YOLO11-n with DynamicConv, batch norm and SiLU after it, on DeepPCB; can start from a static detector (tools/upcycle.py).
_base_ = './yolo11n_deeppcb.py'

dynamic = dict(type='ConvModule', conv_cfg=dict(type='DynamicConv', num_experts=4))
model = dict(backbone=dict(downsample_cfg=dynamic), neck=dict(downsample_cfg=dynamic))
