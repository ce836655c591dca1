# YOLO11-s, static: wider than n.
_base_ = './yolo11n_dota.py'

scale = dict(deepen_factor=0.5, widen_factor=0.5)
model = dict(backbone=scale, neck=scale, bbox_head=dict(head_module=dict(widen_factor=0.5)))
