# Fine-tuning from weights: a lower rate, as the features are learned, and fewer epochs; `--weights` merges it where the schedule is YOLO's.
train_cfg = dict(max_epochs=100, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.002))
default_hooks = dict(param_scheduler=dict(warmup_epochs=1, warmup_bias_lr=0.02))
