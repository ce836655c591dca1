"""Parts for MMEngine's runner: hooks, optimizer wrappers and parameter groups."""

from . import hooks, optim
from .hooks import *  # noqa: F403
from .optim import *  # noqa: F403

__all__ = [*hooks.__all__, *optim.__all__]
