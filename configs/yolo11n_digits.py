# YOLO11-n, static, on the digits: minutes on two CPU cores. A batch of 8, as the iterations are few.
_base_ = ['./_base_/default_runtime.py', './_base_/yolo11.py', './_base_/digits.py', './_base_/schedule_digits.py']

model = dict(bbox_head=dict(head_module=dict(num_classes=10)))
train_dataloader = dict(batch_size=8)
default_hooks = dict(param_scheduler=dict(nominal_batch_size=None, warmup_bias_lr=0.0, warmup_epochs=1))
