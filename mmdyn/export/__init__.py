"""Export: a detector and its checkpoint as a file for another runtime, compared with PyTorch."""

from .export import Exported, export_detector
from .options import ExportOptions

__all__ = ['ExportOptions', 'Exported', 'export_detector']
