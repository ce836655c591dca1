# COCO 2017 at 640 px with the augmentation published for scale n; the larger scales put more into `affine`, `copy_paste` and `mixup`.
# Class names come from the annotation file. Left out of the published recipe: the blur, grey and CLAHE transforms, which it uses only
# where albumentations happens to be installed.
img_scale = (640, 640)
data_root = 'data/coco/'

load = [dict(type='LoadImageFromFile', backend_args=None), dict(type='LoadAnnotations', with_bbox=True)]
mosaic = dict(type='BufferedMosaic', img_scale=img_scale, pad_val=114.0, pre_transform=load)
copy_paste = []  # needs outlines: coco_outlines.py
affine = dict(
    type='YOLO11RandomAffine',
    max_rotate_degree=0.0,
    max_shear_degree=0.0,
    max_translate_ratio=0.1,
    scaling_ratio_range=(0.5, 1.5),
    max_aspect_ratio=100,
    border=(-img_scale[0] // 2, -img_scale[1] // 2),
    border_val=(114, 114, 114))
mixup = dict(type='YOLO11MixUp', prob=0.0, pre_transform=[*load, mosaic, *copy_paste, affine])
letterbox = [
    dict(type='LongSideResize', scale=img_scale),
    dict(type='LetterResize', scale=img_scale, allow_scale_up=True, pad_val=dict(img=114))
]
colour = dict(type='YOLO11HSVRandomAug', hue_delta=0.015, saturation_delta=0.7, value_delta=0.4)
flip = dict(type='mmdet.RandomFlip', prob=0.5)
pack = dict(
    type='PackInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction'))
finish = [colour, flip, pack]
train_pipeline = [*load, mosaic, *copy_paste, affine, mixup, *finish]
last_epochs_pipeline = [*load, *letterbox, dict(affine, border=(0, 0)), *finish]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LongSideResize', scale=img_scale),
    dict(type='LetterResize', scale=img_scale, allow_scale_up=False, pad_val=dict(img=114)),
    dict(type='LoadAnnotations', with_bbox=True, _scope_='mmdet'),
    dict(
        type='PackInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'pad_param'))
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='collate_targets'),
    dataset=dict(
        type='CheckedCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=False, min_size=32),
        pipeline=train_pipeline))
# Validation on rectangles: every image padded as little as the stride allows, in batches of equal shape.
val_batch_size = 16
rectangles = dict(type='ImageShapePolicy', img_size=img_scale[0], size_divisor=32, extra_pad_ratio=0.5)
val_dataloader = dict(
    batch_size=val_batch_size,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='SameShapeBatchSampler'),
    dataset=dict(
        type='CheckedCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        batch_shapes_cfg=rectangles,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='DatasetCocoMetric', metric='bbox', proposal_nums=(100, 1, 10))
test_evaluator = val_evaluator

# Test-time augmentation: three scales, each as it is and flipped.
tta_model = dict(type='mmdet.DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.65), max_per_img=300))
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Compose',
                    transforms=[
                        dict(type='LongSideResize', scale=size),
                        dict(type='LetterResize', scale=size, allow_scale_up=False, pad_val=dict(img=114))
                    ]) for size in ((640, 640), (320, 320), (960, 960))
            ],
            [dict(type='mmdet.RandomFlip', prob=1.), dict(type='mmdet.RandomFlip', prob=0.)],
            [dict(type='mmdet.LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackInputs',
                    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'pad_param', 'flip',
                               'flip_direction'))
            ]
        ])
]
