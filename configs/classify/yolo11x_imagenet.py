# YOLO11-x for classification, static: wider than l.
_base_ = './yolo11l_imagenet.py'

scale = dict(widen_factor=1.5)
model = dict(backbone=scale, head=dict(in_channels=768))
