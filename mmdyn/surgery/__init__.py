"""Surgery on weights: a static detector becomes dynamic, and a dynamic one static."""

from .collapse import collapse_checkpoint
from .counterpart import static_counterpart
from .upcycle import upcycle_checkpoint

__all__ = ['collapse_checkpoint', 'static_counterpart', 'upcycle_checkpoint']
