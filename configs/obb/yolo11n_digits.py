# YOLO11-n for oriented boxes, static, on the digits: minutes on two CPU cores.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/yolo11_obb.py', '../_base_/digits_obb.py', '../_base_/schedule_digits.py'
]

model = dict(bbox_head=dict(head_module=dict(num_classes=10)))
train_dataloader = dict(batch_size=8)
default_hooks = dict(
    param_scheduler=dict(nominal_batch_size=None, warmup_bias_lr=0.0, warmup_epochs=1),
    checkpoint=dict(save_best='coco/oriented_mAP'))
