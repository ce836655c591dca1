# YOLO11-x, static: wider than l.
_base_ = './yolo11l_dota.py'

scale = dict(deepen_factor=1.0, widen_factor=1.5)
model = dict(backbone=scale, neck=scale, bbox_head=dict(head_module=dict(widen_factor=1.5)))
