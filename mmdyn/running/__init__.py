"""Running a config: config files, options of the command line, runners, checkpoint loading and error messages."""

from .config_file import load_config
from .launch import build_runner
from .loading import Loaded, load_checkpoint_model

__all__ = ['Loaded', 'build_runner', 'load_checkpoint_model', 'load_config']
