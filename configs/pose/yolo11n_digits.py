# YOLO11-n for pose, static, on the digits: minutes on two CPU cores.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/yolo11.py', '../_base_/digits_pose.py', '../_base_/schedule_digits.py'
]

model = dict(
    bbox_head=dict(
        type='YOLO11PoseHead',
        sigmas=(0.05, ) * 5,
        skeleton=((5, 1), (5, 2), (5, 3), (5, 4)),
        head_module=dict(type='YOLO11PoseHeadModule', num_classes=10, keypoint_shape=(5, 3))))
train_dataloader = dict(batch_size=8)
default_hooks = dict(
    param_scheduler=dict(nominal_batch_size=None, warmup_bias_lr=0.0, warmup_epochs=1),
    checkpoint=dict(save_best='coco/keypoints_mAP'))
train_cfg = dict(max_epochs=20)  # keypoints settle later than boxes
