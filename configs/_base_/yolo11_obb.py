# YOLO11 for oriented boxes, scale n: yolo11.py with an angle beside every box, and overlaps of turned rectangles.
_base_ = './yolo11.py'

model = dict(
    bbox_head=dict(
        type='YOLO11OrientedHead',
        head_module=dict(type='YOLO11OrientedHeadModule', num_classes=15),
        loss_bbox=dict(_delete_=True, type='ProbIoULoss', reduction='sum', loss_weight=7.5)),
    train_cfg=dict(assigner=dict(type='OrientedAssigner')))
