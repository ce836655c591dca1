"""The tutorial, done as it says: its files written, its commands run, in a folder with nothing set up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config

from conftest import ROOT
from mmdyn.layers import dynamic_layers
from mmdyn.models.build import build_model

TUTORIAL = (ROOT / 'docs/tutorial_ablation.md').read_text()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorial_does_what_it_says(tmp_path):
    for name in ('configs', 'tools', 'mmdyn'):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
    blocks = re.findall(r'```(\w+)(?: title=(\S+))?\n(.*?)```', TUTORIAL, re.S)
    *blocks, (own, _, arm) = blocks
    assert [kind for kind, *_ in blocks] == ['python', 'python', 'shell', 'shell']
    for kind, title, text in blocks:
        if kind == 'python':
            (tmp_path / title).write_text(text)
        else:
            done = subprocess.run(
                ['bash', '-e'], input=text, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200
            )
            assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / 'work_dirs/tutorial'
    report = (folder / 'report.md').read_text()
    for name in ('yolo11n_digits', 'experts8', 'experts8_annealed'):
        assert re.search(rf'\| {name} \| 0\.\d+ \| .* \| 2 of 2 \|', report), report
    for name in re.findall(r'`(\w+\.(?:html|md|csv|sh))`', TUTORIAL):
        assert (folder / name).stat().st_size > 100
    assert cv2.imread(str(folder / 'routing/by_layer.png')) is not None
    # the arm on data of one's own, over a static config that is there
    assert own == 'text'
    (tmp_path / 'arm.py').write_text(arm.replace('./mine.py', './configs/yolo11n_digits.py'))
    assert len(dynamic_layers(build_model(Config.fromfile(tmp_path / 'arm.py')))) == 6
