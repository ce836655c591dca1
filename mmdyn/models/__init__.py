"""YOLO11 for MMYOLO; importing this registers it, and the layers, in MMYOLO's scope."""

from mmyolo.registry import MODELS

from mmdyn.layers import C2PSA, SPPF, C3k, C3k2, C3k2_DynamicConv, DynamicConv, FDConv, ODConv

from .assigner import YOLO11Assigner
from .build import build_model
from .data_preprocessor import YOLO11DataPreprocessor
from .oriented_assigner import OrientedAssigner
from .priors import YOLO11PointGenerator
from .yolo11_backbone import YOLO11Backbone
from .yolo11_detector import YOLO11Detector
from .yolo11_head import YOLO11Head, YOLO11HeadModule
from .yolo11_oriented_head import ProbIoULoss, YOLO11OrientedHead, YOLO11OrientedHeadModule
from .yolo11_pafpn import YOLO11PAFPN
from .yolo11_pose_head import YOLO11PoseHead, YOLO11PoseHeadModule
from .yolo11_segment_head import YOLO11SegmentHead, YOLO11SegmentHeadModule

for _layer in (C2PSA, C3k, C3k2, C3k2_DynamicConv, DynamicConv, FDConv, ODConv, SPPF):
    MODELS.register_module(module=_layer)

__all__ = [
    'YOLO11PAFPN',
    'OrientedAssigner',
    'ProbIoULoss',
    'YOLO11Assigner',
    'YOLO11Backbone',
    'YOLO11DataPreprocessor',
    'YOLO11Detector',
    'YOLO11Head',
    'YOLO11HeadModule',
    'YOLO11OrientedHead',
    'YOLO11OrientedHeadModule',
    'YOLO11PointGenerator',
    'YOLO11PoseHead',
    'YOLO11PoseHeadModule',
    'YOLO11SegmentHead',
    'YOLO11SegmentHeadModule',
    'build_model',
]
