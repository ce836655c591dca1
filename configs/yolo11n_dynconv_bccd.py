# YOLO11-n with DynamicConv on BCCD, 364 microscope images of blood cells; how to get it: yolo11n_bccd.py.
_base_ = './yolo11n_bccd.py'

dynamic = dict(type='DynamicConv', num_experts=4)
model = dict(backbone=dict(downsample_cfg=dynamic), neck=dict(downsample_cfg=dynamic))
