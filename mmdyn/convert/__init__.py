"""Weights of the Ultralytics package: conversion between it and this project, and any weights file as a checkpoint."""

from .conversion import Conversion, convert, convert_from_original, convert_to_original
from .original_file import OriginalFile, read_original
from .pretrained import BackboneOf
from .weights import read_weights, weights_config

__all__ = [
    'BackboneOf',
    'Conversion',
    'OriginalFile',
    'convert',
    'convert_from_original',
    'convert_to_original',
    'read_original',
    'read_weights',
    'weights_config',
]
