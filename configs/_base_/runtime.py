# What every run of every task has around its model and data; default_runtime.py adds what is for boxes. Entry points of MMEngine, mmdet,
# mmyolo and mmpretrain all read it from here.
custom_imports = dict(imports=['mmdyn'], allow_failed_imports=False)
default_scope = 'mmyolo'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(
        type='YOLOScheduleHook',
        scheduler_type='linear',
        lr_factor=0.01,
        warmup_epochs=3,
        warmup_momentum=0.8,
        warmup_bias_lr=0.1,
        nominal_batch_size=64),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, save_best='auto', max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    class_check=dict(type='ClassCheckHook'),
    average_buffers=dict(type='AverageBuffersHook'),
    checkpoint_guard=dict(type='CheckpointGuardHook'),
    resume=dict(type='ResumeHook'),
    channels_last=dict(type='ChannelsLastHook'),
    routing=dict(type='RoutingHook'),
    report=dict(type='ReportHook'))

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

# On a CPU: freed memory stays with the process, for a faster training step. False if memory is short.
keep_freed_memory = True

log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
backend_args = None
