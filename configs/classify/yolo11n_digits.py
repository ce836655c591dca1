# YOLO11-n for classification, static, on crops of one digit: minutes on two CPU cores.
_base_ = [
    '../_base_/classify_runtime.py', '../_base_/yolo11_classify.py', '../_base_/digit_crops.py',
    '../_base_/schedule_digits.py'
]

model = dict(head=dict(num_classes=10))
default_hooks = dict(param_scheduler=dict(nominal_batch_size=None, warmup_bias_lr=0.0, warmup_epochs=1))
train_cfg = dict(max_epochs=16, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=0.001))
ema, _ = _base_.custom_hooks
custom_hooks = [ema]
