"""The ``mmdyn`` node of MMEngine's registry tree.

A child of MMEngine's root, so ``type='mmdyn.DynamicConv'`` resolves from every scope: mmdet, mmyolo, mmpretrain or
none. The bare name ``DynamicConv`` belongs to Sparse R-CNN in mmdet's registry and is never registered there or in
the root.
"""

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmdyn', locations=['mmdyn.layers'])
