# What every run of a classifier has around its model and data.
_base_ = './runtime.py'

default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
visualizer = dict(
    type='mmpretrain.UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
