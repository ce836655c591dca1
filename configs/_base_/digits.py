# The digits, made by DigitsDataset in data_root when they are not there. No flip: a mirrored digit is another digit.
_base_ = './coco_320.py'

digits = dict(type='DigitsDataset', data_root='data/digits/')
val_set = dict(digits, ann_file='annotations/val.json', data_prefix=dict(img='val/'))
finish = [_base_.colour, _base_.pack]

train_dataloader = dict(
    dataset=dict(
        digits,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=[*_base_.load, _base_.mosaic, _base_.affine, *finish]))
last_epochs_pipeline = [*_base_.load, *_base_.letterbox, dict(_base_.affine, border=(0, 0)), *finish]
val_dataloader = dict(dataset=val_set)
test_dataloader = dict(dataset=val_set)

load_tta, augment = _base_.tta_pipeline
sizes, _, *rest_tta = augment['transforms']
tta_pipeline = [load_tta, dict(augment, transforms=[sizes, [dict(type='mmdet.RandomFlip', prob=0.)], *rest_tta])]
