"""Allows the types in MMEngine checkpoints for PyTorch's safe loader.

Since PyTorch 2.6 ``torch.load`` refuses every unknown type (``weights_only=True``). An MMEngine checkpoint contains log
buffers (``HistoryBuffer``, with NumPy arrays and references to its own methods) and NumPy scalars. Only these are
allowed; the protection remains active.

This file imports nothing of mmdyn, because ``ext_finder.py`` runs it alone.
"""

from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

STATISTICS = ('current', 'max', 'mean', 'min')


def _statistic(owner: Any, name: str) -> Any:
    """Replaces ``getattr`` in a pickle: a log buffer refers to its own methods only."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not part of an MMEngine checkpoint')
    return getattr(HistoryBuffer, name)


def _reconstructor(value: np.ndarray | np.generic) -> Any:
    return value.__reduce__()[0]


def allow_checkpoint_types() -> None:
    """Allow the types of an MMEngine checkpoint in ``torch.load(weights_only=True)``."""
    # The module of these two functions has different names in NumPy 1 and 2.
    functions: list = [
        (function, f'{module}.{function.__name__}')
        for function in (_reconstructor(np.ndarray(0)), _reconstructor(np.float64(0)))
        for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
    ]
    methods: list = [(_statistic, 'builtins.getattr'), (_statistic, '__builtin__.getattr')]
    dtypes = [type(np.dtype(code)) for code in 'efdbhilqBHILQ?']
    torch.serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, *dtypes, *functions, *methods])
