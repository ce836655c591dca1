# Routers learn ten times as fast and without weight decay, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

optim_wrapper = dict(
    paramwise_cfg=dict(base_total_batch_size=64, custom_keys={'.router.': dict(lr_mult=10.0, decay_mult=0.0)}))
