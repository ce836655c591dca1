# Fine-tuning from weights: fewer epochs, and one of warm-up, as the features are learned; `--weights` merges it where the schedule is YOLO's.
# docs/train.md has what this rate and a lower one reached.
train_cfg = dict(max_epochs=100, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.01))
default_hooks = dict(param_scheduler=dict(warmup_epochs=1, warmup_bias_lr=0.02))
