# YOLO11-m for classification, static: wide, C3k in every block, last stage capped at 512.
_base_ = './yolo11s_imagenet.py'

scale = dict(deepen_factor=0.5, widen_factor=1.0, c3k=True, last_stage_out_channels=512)
model = dict(backbone=scale, head=dict(in_channels=512))
