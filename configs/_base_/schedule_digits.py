# Minutes on two CPU cores: AdamW, as the iterations are few.
_base_ = './schedule_600e.py'

train_cfg = dict(max_epochs=18, val_interval=3)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.0005))
randomness = dict(seed=0)
