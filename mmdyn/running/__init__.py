"""Running a config: from a file and the command line to a runner or a model, from an error to a message."""

from .config_file import load_config
from .launch import build_runner
from .loading import Loaded, load_checkpoint_model

__all__ = ['Loaded', 'build_runner', 'load_checkpoint_model', 'load_config']
