"""The definition of a dynamic convolution as a plain loop, which faster ways are compared with."""

import torch
import torch.nn.functional as F


def plain_loop(x, experts, routing, biases, stride, padding, dilation, groups):
    """The definition, one sample and one expert at a time."""
    outputs = []
    for b in range(len(x)):
        kernel = sum(routing[b, m] * experts[m] for m in range(len(experts)))
        bias = None if biases is None else sum(routing[b, m] * biases[m] for m in range(len(experts)))
        outputs.append(F.conv2d(x[b : b + 1], kernel, bias, stride, padding, dilation, groups))
    return torch.cat(outputs)
