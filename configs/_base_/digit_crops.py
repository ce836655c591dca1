# Crops of one digit at 64 px, made by DigitCrops when they are not there. No flip: a mirrored digit is another digit. Nothing but the crop
# is random: with RandAugment a training of minutes is over before it has learned.
_base_ = './imagenet.py'
crop_size = 64

crop = dict(_base_.crop, size=crop_size, scale=(0.9, 1.0))
train_pipeline = [*_base_.load, crop, _base_.erase[0], _base_.pack]
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(type='DigitCrops', data_root='data/digit_crops/train', pipeline=train_pipeline))
*_, resize, centre, to_tensor, _ = _base_.test_pipeline
test_pipeline = [*_base_.load, dict(resize, size=crop_size), dict(centre, size=crop_size), to_tensor, _base_.pack]
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    dataset=dict(type='DigitCrops', data_root='data/digit_crops/val', pipeline=test_pipeline))
test_dataloader = val_dataloader
