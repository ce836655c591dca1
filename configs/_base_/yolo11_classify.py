# YOLO11 for classification, scale n: the backbone without SPPF, and a linear layer behind 1,280 features. Batch norm is PyTorch's own.
# The class count of the whole config is model.head.num_classes. Needs mmpretrain (requirements/classify.txt).
scale = dict(deepen_factor=0.5, widen_factor=0.25)

model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[0., 0., 0.], std=[255., 255., 255.], to_rgb=False),
    backbone=dict(
        type='YOLO11Backbone',
        last_stage_out_channels=1024,
        c3k=False,
        downsample_cfg=dict(type='ConvModule'),
        block_cfg=dict(type='C3k2'),
        sppf=False,
        out_indices=(4, ),
        norm_cfg=dict(type='BN', momentum=0.1, eps=1e-5),
        **scale),
    head=dict(type='YOLO11ClassifyHead', num_classes=1000, in_channels=256))
