# Routing by softmax, its temperature lowered from 30 to 1 over the first half of training, on the digits.
_base_ = './yolo11n_dynconv-bn_softmax_digits.py'

custom_hooks = [*_base_.custom_hooks, dict(type='TemperatureHook', begin=30.0, epochs=_base_.train_cfg.max_epochs / 2)]
