# YOLO11-m, static: wide, C3k in every block, last stage capped at 512.
_base_ = './yolo11s_dota.py'

scale = dict(deepen_factor=0.5, widen_factor=1.0, c3k=True)
model = dict(
    backbone=dict(scale, last_stage_out_channels=512),
    neck=dict(scale, in_channels=[512, 512, 512], out_channels=[256, 512, 512]),
    bbox_head=dict(head_module=dict(widen_factor=1.0, in_channels=[256, 512, 512])))
