# YOLO11, scale n. The other scales and the dynamic variants are diffs of this.
# The class count of the whole config is model.bbox_head.head_module.num_classes.
strides = [8, 16, 32]
scale = dict(deepen_factor=0.5, widen_factor=0.25)

model = dict(
    type='YOLO11Detector',
    use_syncbn=False,
    data_preprocessor=dict(
        type='YOLO11DataPreprocessor', mean=[0., 0., 0.], std=[255., 255., 255.], bgr_to_rgb=True),
    backbone=dict(
        type='YOLO11Backbone',
        last_stage_out_channels=1024,
        c3k=False,
        downsample_cfg=dict(type='ConvModule'),
        block_cfg=dict(type='C3k2'),
        **scale),
    neck=dict(
        type='YOLO11PAFPN',
        in_channels=[512, 512, 1024],
        out_channels=[256, 512, 1024],
        c3k=False,
        downsample_cfg=dict(type='ConvModule'),
        block_cfg=dict(type='C3k2'),
        **scale),
    bbox_head=dict(
        type='YOLO11Head',
        head_module=dict(
            type='YOLO11HeadModule',
            num_classes=80,
            in_channels=[256, 512, 1024],
            widen_factor=scale['widen_factor'],
            reg_max=16,
            featmap_strides=strides),
        prior_generator=dict(type='YOLO11PointGenerator', offset=0.5, strides=strides),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, reduction='none', loss_weight=0.5),
        loss_bbox=dict(
            type='IoULoss', iou_mode='ciou', bbox_format='xyxy', reduction='sum', loss_weight=7.5, return_iou=False),
        # mmdet averages over the four sides where the published recipe sums: hence the division.
        loss_dfl=dict(type='mmdet.DistributionFocalLoss', reduction='mean', loss_weight=1.5 / 4)),
    train_cfg=dict(
        assigner=dict(type='YOLO11Assigner', use_ciou=True, topk=10, alpha=0.5, beta=6.0, eps=1e-9)),
    test_cfg=dict(
        multi_label=True,
        nms_pre=30000,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.7),
        max_per_img=300))
