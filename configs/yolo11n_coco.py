# YOLO11-n, static: the control of every dynamic variant.
_base_ = ['./_base_/default_runtime.py', './_base_/yolo11.py', './_base_/coco.py', './_base_/schedule_600e.py']
