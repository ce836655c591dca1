"""Conversion of YOLO11 checkpoints between this project and the Ultralytics package."""

from .conversion import Conversion, convert_from_original, convert_to_original
from .original_file import OriginalFile, read_original

__all__ = ['Conversion', 'OriginalFile', 'convert_from_original', 'convert_to_original', 'read_original']
