"""What MMEngine puts into its checkpoints beside tensors, made known to PyTorch's safe loader.

``torch.load`` refuses every type it does not know since PyTorch 2.6 (``weights_only=True``). An MMEngine checkpoint holds its log buffers
(``HistoryBuffer``, with NumPy arrays inside) and NumPy scalars. Exactly these are allowed; the protection stays on.

Nothing of the package: ``ext_finder.py`` runs this file on its own.
"""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def allow_checkpoint_types() -> None:
    """Allow the types of an MMEngine checkpoint in ``torch.load(weights_only=True)``."""
    reconstruct, array = np.empty(0).__reduce__()[:2]
    scalar = np.float64(0).__reduce__()[0]
    old, new = 'numpy.core.multiarray', 'numpy._core.multiarray'  # NumPy 1 and 2 wrote different names
    functions = [(f, f'{module}.{f.__name__}') for f in (reconstruct, scalar) for module in (old, new)]
    dtypes = [type(np.dtype(code)) for code in 'efdbhilqBHILQ?']
    torch.serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, array[0], *dtypes, *functions])
