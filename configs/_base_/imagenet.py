# ImageNet as folders of classes, at 224 px, as the original trains: random crops, mirrored, RandAugment, erased rectangles.
crop_size = 224  # height and width; `--imgsz` sets it

load = [dict(type='LoadImageFromFile'), dict(type='mmpretrain.NumpyToPIL', to_rgb=True)]
crop = dict(
    type='mmpretrain.torchvision/RandomResizedCrop', size=crop_size, scale=(0.5, 1.0), interpolation='bilinear')
flip = dict(type='mmpretrain.torchvision/RandomHorizontalFlip', p=0.5)
augment = dict(type='mmpretrain.torchvision/RandAugment', num_ops=2, magnitude=9, interpolation='bilinear')
erase = [
    dict(type='mmpretrain.torchvision/PILToTensor'),
    dict(type='mmpretrain.torchvision/RandomErasing', p=0.4, value=0)
]
pack = dict(type='mmpretrain.PackInputs')
train_pipeline = [*load, crop, flip, augment, *erase, pack]
test_pipeline = [
    *load,
    dict(type='mmpretrain.torchvision/Resize', size=crop_size, interpolation='bilinear'),
    dict(type='mmpretrain.torchvision/CenterCrop', size=crop_size),
    dict(type='mmpretrain.torchvision/PILToTensor'),
    pack
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ImageFolder', data_root='data/imagenet/train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageFolder', data_root='data/imagenet/val', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='TopAccuracy', topk=(1, 5))
test_evaluator = val_evaluator
