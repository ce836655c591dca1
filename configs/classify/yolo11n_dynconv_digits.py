# YOLO11-n for classification with DynamicConv on crops of one digit.
_base_ = './yolo11n_digits.py'

model = dict(backbone=dict(downsample_cfg=dict(type='DynamicConv', num_experts=4)))
optim_wrapper = dict(optimizer=dict(lr=0.0006))  # without batch norm behind it, 0.001 stays at chance for ten epochs
train_cfg = dict(max_epochs=12)
