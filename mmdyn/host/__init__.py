"""Host packages: makes MMCV, MMEngine, MMDetection and MMYOLO run on current PyTorch.

Nothing here changes an installed package. :func:`prepare` acts on this process and its children; the opt-in for stock
entry points is a command (``python -m mmdyn.host``).
"""

from .allocator import keep_freed_memory
from .ext_finder import install
from .optional_packages import treat_broken_as_absent
from .spawn import follow_into_children


def prepare() -> None:
    """Provide ``mmcv._ext`` where it is missing and let PyTorch's safe loader read MMEngine checkpoints."""
    install()
    follow_into_children()
    treat_broken_as_absent()
    from .checkpoint_types import allow_checkpoint_types
    from .config_text import format_once

    allow_checkpoint_types()
    format_once()


__all__ = ['keep_freed_memory', 'prepare']
