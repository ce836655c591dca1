# Fine-tuning from weights: fewer epochs, one of warm-up, as the features are learned, and a step every batch, as the data is mostly small;
# `--weights` merges it where the schedule is YOLO's. docs/train.md has what this recipe and others reached.
train_cfg = dict(max_epochs=100, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.01))
default_hooks = dict(param_scheduler=dict(warmup_epochs=1, warmup_bias_lr=0.02, nominal_batch_size=None))
