# YOLO11-n for the pose of persons, static: boxes and 17 keypoints. The other scales and the dynamic variants are the same diffs as in
# detection.
_base_ = ['../_base_/default_runtime.py', '../_base_/yolo11.py', '../_base_/coco_pose.py', '../_base_/schedule_600e.py']

model = dict(
    bbox_head=dict(
        type='YOLO11PoseHead', head_module=dict(type='YOLO11PoseHeadModule', num_classes=1, keypoint_shape=(17, 3))))
default_hooks = dict(checkpoint=dict(save_best='coco/keypoints_mAP'))
