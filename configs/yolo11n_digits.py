# YOLO11-n, static, on the digits: minutes on two CPU cores. AdamW and a batch of 8, as the iterations are few.
_base_ = ['./_base_/default_runtime.py', './_base_/yolo11.py', './_base_/digits.py', './_base_/schedule_600e.py']

model = dict(bbox_head=dict(head_module=dict(num_classes=10)))
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_epochs=18, val_interval=3)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.0005))
default_hooks = dict(param_scheduler=dict(nominal_batch_size=None, warmup_bias_lr=0.0, warmup_epochs=1))
randomness = dict(seed=0)
