# The published recipe: SGD for 600 epochs at a batch of 128 (8 devices x 16), linear decay, EMA, mosaic closed for the
# last 10 epochs; warm-up is in default_runtime.py.
# Whatever depends on the number of epochs or the batch takes it from the runner: changing train_cfg.max_epochs is enough.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=600, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = None
optim_wrapper = dict(
    type='YOLOOptimWrapper',
    clip_grad=dict(max_norm=10.0),
    optimizer=dict(type='SGD', lr=0.01, momentum=0.937, weight_decay=0.0005, nesterov=True, fused=True),
    constructor='YOLOOptimizerConstructor')
custom_hooks = [
    dict(
        type='YOLOEMAHook',
        momentum=0.0001,
        gamma=2000,
        update_buffers=True,
        strict_load=False,
        priority=49),
    dict(type='CloseMosaicHook', num_last_epochs=10, switch_pipeline='last_epochs_pipeline')
]
