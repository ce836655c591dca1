"""A real photograph for comparing outputs."""

import numpy as np
import torch
from torch import Tensor, nn


def photograph(size: int | tuple[int, int] = 640, channels: int = 3) -> Tensor:
    """A real photograph that scikit-learn ships: (1, channels, height, width), RGB or grey ones, 0 to 255."""
    from sklearn.datasets import load_sample_image  # takes a second

    image = load_sample_image('china.jpg')
    side = min(image.shape[:2])
    image = torch.from_numpy(np.ascontiguousarray(image[:side, :side])).permute(2, 0, 1)[None].float()
    if channels != 3:
        image = image.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    return nn.functional.interpolate(image, size, mode='bilinear')
