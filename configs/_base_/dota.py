# DOTA v1.0 in tiles of 1024 px (tools/tile_images.py makes them), as COCO-format files whose polygons are the corners. Seen from above,
# objects have any direction: images are turned by any angle, and mirrored both ways.
_base_ = './coco.py'
img_scale = (1024, 1024)
data_root = 'data/dota_tiles/'

load = [_base_.load[0], dict(type='LoadOrientedBoxes', with_mask=True)]
mosaic = dict(_base_.mosaic, img_scale=img_scale, pre_transform=load)
affine = dict(
    _base_.affine,
    max_rotate_degree=180.0,
    scaling_ratio_range=(0.1, 1.9),
    min_area_ratio=0.01,
    border=(-img_scale[0] // 2, -img_scale[1] // 2))
mixup = dict(_base_.mixup, prob=0.15, pre_transform=[*load, mosaic, affine])
letterbox = [dict(step, scale=img_scale) for step in _base_.letterbox]
flips = [dict(_base_.flip, direction=direction) for direction in ('horizontal', 'vertical')]
finish = [_base_.colour, *flips, dict(type='OrientBoxes'), _base_.pack]
train_pipeline = [*load, mosaic, affine, mixup, *finish]
last_epochs_pipeline = [*load, *letterbox, dict(affine, border=(0, 0)), *finish]
load_image, resize, pad, *rest = _base_.test_pipeline
test_pipeline = [load_image, dict(resize, scale=img_scale), dict(pad, scale=img_scale), *rest]

tiles = dict(corners=True, data_root=data_root)
train_dataloader = dict(
    dataset=dict(
        tiles,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        tiles,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        batch_shapes_cfg=dict(_base_.rectangles, img_size=img_scale[0]),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='oriented')
test_evaluator = val_evaluator
