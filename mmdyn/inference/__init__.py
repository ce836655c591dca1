"""Inference: images in, detections out, with a checkpoint or with an exported file."""

from .evaluation import evaluate
from .exported_detector import ExportedDetector, use_exported
from .load import Model, has_own_weights, load_model
from .media import Media, open_media
from .prediction import Prediction
from .results import Outputs, write_results
from .runtimes import open_exported

__all__ = [
    'ExportedDetector',
    'Media',
    'Model',
    'Outputs',
    'Prediction',
    'evaluate',
    'has_own_weights',
    'load_model',
    'open_exported',
    'open_media',
    'use_exported',
    'write_results',
]
