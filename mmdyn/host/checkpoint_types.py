"""What MMEngine puts into its checkpoints beside tensors, made known to PyTorch's safe loader.

``torch.load`` refuses every type it does not know since PyTorch 2.6 (``weights_only=True``). An MMEngine checkpoint
holds its log buffers (``HistoryBuffer``, with NumPy arrays and methods of its own inside) and NumPy scalars. Exactly
these are allowed; the protection stays on.

This file imports nothing of mmdyn, as ``ext_finder.py`` runs it alone.
"""

from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

STATISTICS = ('current', 'max', 'mean', 'min')


def _statistic(owner: Any, name: str) -> Any:
    """Stands where a pickle says ``getattr``: a log buffer keeps references to its own methods, and to nothing else."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not part of an MMEngine checkpoint')
    return getattr(HistoryBuffer, name)


def _reconstructor(value: np.ndarray | np.generic) -> Any:
    return value.__reduce__()[0]


def allow_checkpoint_types() -> None:
    """Allow the types of an MMEngine checkpoint in ``torch.load(weights_only=True)``."""
    # NumPy 1 and 2 call the module of these two functions by different names.
    functions: list = [
        (function, f'{module}.{function.__name__}')
        for function in (_reconstructor(np.ndarray(0)), _reconstructor(np.float64(0)))
        for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
    ]
    methods: list = [(_statistic, 'builtins.getattr'), (_statistic, '__builtin__.getattr')]
    dtypes = [type(np.dtype(code)) for code in 'efdbhilqBHILQ?']
    torch.serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, *dtypes, *functions, *methods])
