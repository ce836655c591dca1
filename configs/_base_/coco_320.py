# COCO-format data at 320 px, without mixup: for small machines and small data sets.
_base_ = './coco.py'
img_scale = (320, 320)

mosaic = dict(_base_.mosaic, img_scale=img_scale)
affine = dict(_base_.affine, border=(-img_scale[0] // 2, -img_scale[1] // 2))
letterbox = [dict(step, scale=img_scale) for step in _base_.letterbox]
finish = _base_.finish
load_image, resize, pad, *rest = _base_.test_pipeline
test_pipeline = [load_image, dict(resize, scale=img_scale), dict(pad, scale=img_scale), *rest]

train_dataloader = dict(
    num_workers=2,
    dataset=dict(pipeline=[*_base_.load, mosaic, affine, *finish]))
last_epochs_pipeline = [*_base_.load, *letterbox, dict(affine, border=(0, 0)), *finish]
rectangles = dict(_base_.rectangles, img_size=img_scale[0])
val_dataloader = dict(num_workers=2, dataset=dict(batch_shapes_cfg=rectangles, pipeline=test_pipeline))
test_dataloader = val_dataloader

load_tta, augment = _base_.tta_pipeline
tta_sizes = [
    dict(type='Compose', transforms=[dict(resize, scale=size), dict(pad, scale=size)])
    for size in ((320, 320), (160, 160), (480, 480))
]
tta_pipeline = [load_tta, dict(augment, transforms=[tta_sizes, *augment['transforms'][1:]])]
