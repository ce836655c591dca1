# YOLO11-s for classification, static: wider than n.
_base_ = './yolo11n_imagenet.py'

scale = dict(deepen_factor=0.5, widen_factor=0.5)
model = dict(backbone=scale, head=dict(in_channels=512))
