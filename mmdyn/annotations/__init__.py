"""Annotations of every format as arrays: read once, checked, kept in a cache that processes share."""

from .coco import read_coco
from .dota import read_dota
from .table import Annotations
from .voc import read_voc
from .yolo import read_yolo

__all__ = ['Annotations', 'read_coco', 'read_dota', 'read_voc', 'read_yolo']
