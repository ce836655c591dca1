# YOLO11-n for classification, static, on ImageNet.
_base_ = [
    '../_base_/classify_runtime.py', '../_base_/yolo11_classify.py', '../_base_/imagenet.py', '../_base_/schedule_600e.py'
]

train_cfg = dict(max_epochs=100, val_interval=1)
ema, _ = _base_.custom_hooks
custom_hooks = [ema]
