# What every run of a detector has around its model and data.
_base_ = './runtime.py'

default_hooks = dict(
    checkpoint=dict(save_best='coco/bbox_mAP'),
    visualization=dict(type='mmdet.DetVisualizationHook'))
visualizer = dict(
    type='mmdet.DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
