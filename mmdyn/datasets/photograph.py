"""A real photograph for comparing outputs."""

import numpy as np
import torch
from torch import Tensor, nn


def photograph(size: int = 640) -> Tensor:
    """A real photograph that scikit-learn ships, cut to a square: (1, 3, size, size), RGB, 0 to 255."""
    from sklearn.datasets import load_sample_image  # takes a second

    image = load_sample_image('china.jpg')
    side = min(image.shape[:2])
    image = torch.from_numpy(np.ascontiguousarray(image[:side, :side])).permute(2, 0, 1)[None].float()
    return nn.functional.interpolate(image, (size, size), mode='bilinear')
