"""Files as the Ultralytics package writes them, made without it: pickled objects of classes that exist nowhere else."""

import sys
from types import ModuleType

import torch
from torch import nn

from mmdyn.convert.key_table import PROJECTION, original_names
from mmdyn.convert.variant import Variant
from mmdyn.models.build import build_model


def variant_of(scale='n', kind='', classes=3, **options):
    """A variant by its config's name and options."""
    named = {name.replace('__', '.'): value for name, value in options.items()}
    named = {'model.bbox_head.head_module.num_classes': classes} | named
    return Variant(scale, classes, f'yolo11{scale}{kind}_coco.py', named)


def random_state_dict(variant, seed=0):
    """A state dict of the original, with random content."""
    generator = torch.Generator().manual_seed(seed)
    ours = build_model(variant.load_config()).state_dict()
    names = original_names(ours)
    theirs = {
        names[k]: torch.rand(v.shape, generator=generator) if v.is_floating_point() else torch.tensor(7)
        for k, v in ours.items()
    }
    return theirs | {PROJECTION: torch.arange(16.0).view(1, 16, 1, 1)}


class Package:
    """A package of classes, importable while files are written; what was there under its names comes back."""

    def __init__(self, *names):
        self.classes, self.modules = {}, {}
        for full_name in names:
            module, _, name = full_name.rpartition('.')
            parts = module.split('.')
            for depth in range(1, len(parts) + 1):
                parent = '.'.join(parts[:depth])
                self.modules.setdefault(parent, ModuleType(parent))
            self.classes[name] = type(name, (nn.Module,), {'__module__': module})
            setattr(self.modules[module], name, self.classes[name])

    def __enter__(self):
        self.before = {name: sys.modules[name] for name in self.modules if name in sys.modules}
        sys.modules.update(self.modules)
        return self.classes

    def __exit__(self, *_):
        for name in self.modules:
            del sys.modules[name]
        sys.modules.update(self.before)


def save_original(path, state_dict, names=None, head='Detect', wrapper='model', **content):
    """Write a ``.pt`` of live objects: float16, with names, under ``model``, or wherever ``content`` puts it.

    Args:
        path: File to write.
        state_dict: Tensors by the original's names.
        names: Class names.
        head: Class of the last layer.
        wrapper: Key under which the model goes, or None for the model itself.
        **content: What else the file holds.
    """
    package = 'ultralytics.nn'
    with Package(f'{package}.tasks.DetectionModel', f'{package}.block.Layer', f'{package}.head.{head}') as classes:
        root = classes['DetectionModel']()
        last = max((k.split('.')[1] for k in state_dict), key=int)
        for name, tensor in state_dict.items():
            *owners, own_name = name.split('.')
            module = root
            for depth, owner in enumerate(owners):
                kind = classes[head if owners[: depth + 1] == ['model', last] else 'Layer']
                if owner not in module._modules:
                    module.add_module(owner, kind())
                module = module._modules[owner]
            if own_name.startswith(('running', 'num_')):
                module.register_buffer(own_name, tensor.clone())
            else:
                module.register_parameter(own_name, nn.Parameter(tensor.clone()))
        root.half()
        if names:
            root.names = dict(enumerate(names))
        torch.save(root if wrapper is None else {wrapper: root, **content}, path)
    return path
