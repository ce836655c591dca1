# YOLO11-n for detection, static, on data with outlines: boxes follow them, and objects are pasted into other places, as published.
# The other scales and the dynamic variants are the same diffs as without outlines.
_base_ = ['../_base_/default_runtime.py', '../_base_/yolo11.py', '../_base_/coco_outlines.py', '../_base_/schedule_600e.py']
