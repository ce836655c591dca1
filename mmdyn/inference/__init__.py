"""Inference: images in, detections out, with a checkpoint or with an exported file."""

from .evaluation import evaluate
from .exported_detector import ExportedDetector, use_exported
from .load import Model, Prediction, has_own_weights, load_model
from .media import Media
from .results import write_results
from .runtimes import open_exported

__all__ = [
    'ExportedDetector',
    'Media',
    'Model',
    'Prediction',
    'evaluate',
    'has_own_weights',
    'load_model',
    'open_exported',
    'use_exported',
    'write_results',
]
