"""What several test files use."""

import atexit
import gc
import logging
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

# Annotations that tests read are kept for this run alone, not among those of the user.
os.environ['MMDYN_CACHE'] = tempfile.mkdtemp(prefix='mmdyn-cache-')
atexit.register(shutil.rmtree, os.environ['MMDYN_CACHE'], ignore_errors=True)

if 'PYTEST_XDIST_WORKER' in os.environ:  # tests run two at a time, and so do the processes that they start
    os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch
from mmengine.config import Config
from torch import nn

import mmdyn  # noqa: F401  (prepares the host before anything imports mmdet)

torch.set_num_threads(1)  # the tensors of most tests are too small to share

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    """A small set of digits: 24 images to train on, 8 to validate."""
    from mmdyn.datasets import make_digits

    return make_digits(tmp_path_factory.mktemp('data') / 'digits', seed=0, splits={'train': 24, 'val': 8})


@pytest.fixture(scope='session')
def run():
    """Run a Python command line; returns the finished process with its text."""

    def run_python(*args, env=None, cwd=ROOT, timeout=300):
        return subprocess.run(
            [sys.executable, *map(str, args)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )

    return run_python


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a tool as :func:`run` does, but in this process, where the process is not the point: no import of torch."""

    def call_tool(path, *args):
        from mmdet.visualization import DetLocalVisualizer

        path = ROOT / path
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.chdir(ROOT)
        # MMEngine's loggers keep the stream that they found, which may be that of an earlier test
        monkeypatch.setattr(logging, 'raiseExceptions', False)
        capsys.readouterr()
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                runpy.run_path(str(path), run_name='__main__')
            except SystemExit as e:
                code = e.code or 0
            finally:  # MMEngine keeps visualizers by name, and warns of a second of a name
                DetLocalVisualizer._instance_dict.clear()
                if multiprocessing.active_children():  # loaders end with their workers, and not in a later test
                    gc.collect()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess([str(path), *args], code, out, err)

    return call_tool


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
    from mmdyn.convert import convert_from_original
    from mmdyn.models.build import build_model

    def make(scale='n', variant='static', classes=80, names=None, task='detect') -> Pair:
        folder = tmp_path_factory.mktemp(f'{task}-{scale}-{variant}')
        theirs = original.randomise(original.build(scale, variant, classes, task)).eval()
        theirs.names = dict(enumerate(names)) if names else theirs.names
        torch.save({'model': theirs}, folder / 'original.pt')
        conversion = convert_from_original(folder / 'original.pt', folder / 'converted.pth')
        cfg = conversion.variant.load_config()
        ours = build_model(cfg)
        ours.load_state_dict(torch.load(folder / 'converted.pth', weights_only=True)['state_dict'])
        return Pair(theirs, ours, cfg, folder / 'original.pt', folder / 'converted.pth')

    return make


@pytest.fixture(scope='session')
def alike(tmp_path_factory):
    """A config, and a checkpoint like a trained one: random weights, batch norm statistics of a photograph."""
    from mmdyn.datasets.photograph import photograph
    from mmdyn.models.build import build_model, input_channels
    from mmdyn.tasks import head_of

    made: dict[str, Path] = {}

    def make(config: str, **options) -> tuple[Config, Path]:
        cfg = Config.fromfile(ROOT / 'configs' / config)
        cfg.merge_from_dict(options)
        key = f'{config} {cfg.model}'
        if key not in made:
            made[key] = checkpoint_of(cfg, Path(config).stem)
        return cfg, made[key]

    def checkpoint_of(cfg: Config, name: str) -> Path:
        torch.manual_seed(0)
        model = build_model(cfg).train()
        with torch.no_grad():
            image = photograph(160, input_channels(model))
            for _ in range(20):  # a momentum of 0.03
                model(torch.cat((image, image.flip(3))) / 255, None, mode='tensor')
        path = tmp_path_factory.mktemp('alike') / f'{name}.pth'
        classes = tuple(str(i) for i in range(head_of(model).num_classes))
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), path)
        return path

    return make
