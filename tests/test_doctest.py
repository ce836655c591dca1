"""The examples of docstrings run, and every public class has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from torch import nn

import mmdyn

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mmdyn.__path__, 'mmdyn.')
    if not module.name.endswith(('__main__', 'ext_ops', 'ext_finder')) and '.mim' not in module.name
)


@pytest.fixture
def names(alike, digits, tmp_path):
    """What examples may use without importing it."""
    _, checkpoint = alike('yolo11n_dynconv_digits.py')
    image = sorted((digits / 'val').iterdir())[0]
    return dict(torch=torch, nn=nn, np=np, folder=tmp_path, digits_checkpoint=checkpoint, digits_image=image)


@pytest.mark.parametrize('name', MODULES)
def test_examples_of_a_module(name, request):
    if name.startswith('mmdyn.classify.'):
        pytest.importorskip('mmpretrain', reason='needs requirements/classify.txt')
    module = importlib.import_module(name)
    tests = [t for t in doctest.DocTestFinder(exclude_empty=True).find(module) if t.examples]
    if not tests:
        return
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    extra = request.getfixturevalue('names')
    for test in tests:
        test.globs.update({k: v for k, v in extra.items() if k not in test.globs})
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


ROOMS = ('layers', 'models', 'datasets', 'metrics', 'engine', 'routing', 'inference', 'surgery', 'export', 'convert')


@pytest.mark.parametrize('room', ROOMS)
def test_every_public_class_has_an_example(room):
    module = importlib.import_module(f'mmdyn.{room}')
    public = [getattr(module, name) for name in module.__all__]
    classes = [item for item in public if inspect.isclass(item)]
    assert [c.__name__ for c in classes if '>>> ' not in (c.__doc__ or '')] == []
