"""Priors: the centres of the cells of every level, in pixels.

Subclass of mmdet's ``MlvlPointGenerator``, which computes them in the type of the logits: bfloat16 has 8 bits of
mantissa, so centres from 1024 pixels have an error of up to 4.
"""

import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmyolo.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class YOLO11PointGenerator(MlvlPointGenerator):
    """``MlvlPointGenerator`` in at least float32, for logits of any type. Arguments are the same.

    Example:
        >>> priors = YOLO11PointGenerator(strides=[8, 16, 32], offset=0.5)
        >>> priors.single_level_grid_priors((1, 2), 0, dtype=torch.bfloat16, device='cpu')
        tensor([[ 4.,  4.],
                [12.,  4.]])
    """

    def single_level_grid_priors(
        self, featmap_size: tuple[int, int], level_idx: int, dtype: torch.dtype = torch.float32, **kwargs
    ) -> Tensor:
        """Centres of one level, (H * W, 2), or (H * W, 4) with the stride; arguments are those of the parent."""
        dtype = torch.promote_types(dtype, torch.float32)
        return super().single_level_grid_priors(featmap_size, level_idx, dtype, **kwargs)

    def _meshgrid(self, x: Tensor, y: Tensor, row_major: bool = True) -> tuple[Tensor, Tensor]:
        """As in the parent, which leaves out what PyTorch will require, and so warns."""
        rows, columns = (axis.flatten() for axis in torch.meshgrid(y, x, indexing='ij'))
        return (columns, rows) if row_major else (rows, columns)
