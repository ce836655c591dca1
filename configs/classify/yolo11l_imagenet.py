# YOLO11-l for classification, static: deeper than m.
_base_ = './yolo11m_imagenet.py'

scale = dict(deepen_factor=1.0)
model = dict(backbone=scale, head=dict(in_channels=512))
