# YOLO11, static, as wide as makes it have the parameters of YOLO11-n with DynamicConv (1 % more): the control for size, on the digits.
_base_ = '../yolo11n_digits.py'

wide = dict(widen_factor=0.336)
model = dict(backbone=wide, neck=wide, bbox_head=dict(head_module=wide))
