"""Initialisation of YOLO11: PyTorch's own for convolutions, the layer's own for dynamic ones.

``mmcv.cnn.ConvModule`` initialises its convolution for a ReLU; YOLO's recipes were tuned with PyTorch's default.
"""

from torch import nn

from mmdyn.layers import DynamicConv


def reset_convs(module: nn.Module) -> None:
    """Reset the parameters of every convolution in ``module``.

    Args:
        module: Module to initialise in place.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
        elif isinstance(layer, DynamicConv):
            layer.init_weights()
