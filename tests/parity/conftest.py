"""Tests against the original YOLO11: run by ``make parity``, which installs the Ultralytics package for them."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from torch import nn

INSTALLED = importlib.util.find_spec('ultralytics') is not None
collect_ignore_glob = [] if INSTALLED else ['test_*.py']
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.parity)


class Pair(NamedTuple):
    """The same model on both sides, and what it was converted through."""

    original: nn.Module
    ours: nn.Module
    cfg: Config
    file: Path  # of the original
    checkpoint: Path  # of this project


@pytest.fixture(scope='session')
def pair(tmp_path_factory):
    """Make a random model of the original, save it there, convert it, and load it here."""
    import original
    from mmdyn.analysis.flops import build_model
    from mmdyn.convert import convert_from_original

    def make(scale='n', variant='static', classes=80, names=None) -> Pair:
        folder = tmp_path_factory.mktemp(f'{scale}-{variant}')
        theirs = original.randomise(original.build(scale, variant, classes)).eval()
        theirs.names = dict(enumerate(names)) if names else theirs.names
        torch.save({'model': theirs}, folder / 'original.pt')
        conversion = convert_from_original(folder / 'original.pt', folder / 'converted.pth')
        cfg = conversion.variant.load_config()
        ours = build_model(cfg)
        ours.load_state_dict(torch.load(folder / 'converted.pth', weights_only=True)['state_dict'])
        return Pair(theirs, ours, cfg, folder / 'original.pt', folder / 'converted.pth')

    return make
