# The persons of COCO 2017 with their 17 keypoints. Persons without a labelled keypoint are not trained on, but evaluated.
_base_ = './coco.py'
keypoints = (17, 3)

load = [_base_.load[0], dict(type='LoadKeypoints')]
letterbox = [_base_.letterbox[0], dict(_base_.letterbox[1], type='LetterBox')]
mosaic = dict(_base_.mosaic, pre_transform=load)
affine = _base_.affine
mixup = dict(_base_.mixup, pre_transform=[*load, mosaic, affine])
finish = [_base_.colour, dict(type='KeypointFlip', prob=0.5), _base_.pack]
train_dataloader = dict(
    dataset=dict(
        keypoints=keypoints,
        ann_file='annotations/person_keypoints_train2017.json',
        pipeline=[*load, mosaic, affine, mixup, *finish]))
last_epochs_pipeline = [*load, *letterbox, dict(affine, border=(0, 0)), *finish]
val_dataloader = dict(dataset=dict(keypoints=keypoints, ann_file='annotations/person_keypoints_val2017.json'))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'keypoints'])
test_evaluator = val_evaluator
