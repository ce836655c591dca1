# YOLO11-l, static: deeper than m.
_base_ = './yolo11m_dota.py'

scale = dict(deepen_factor=1.0, widen_factor=1.0)
model = dict(backbone=scale, neck=scale, bbox_head=dict(head_module=dict(widen_factor=1.0)))
