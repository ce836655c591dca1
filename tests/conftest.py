"""What several test files use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
