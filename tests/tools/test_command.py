"""``mmdyn`` on the command line: every command, help at once, and training on data in place."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT

MMDYN = ROOT / 'tools/mmdyn'
sys.path.insert(0, str(ROOT / 'tools'))
from _arguments import COMMANDS


def command(*arguments, **options):
    """Run mmdyn in a process, as a user does."""
    return subprocess.run(
        [sys.executable, str(MMDYN), *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )


def test_help_lists_every_command():
    done = command('--help')
    assert done.returncode == 0
    for name, each in COMMANDS.items():
        assert re.search(rf'^  {name} +{re.escape(each.purpose)}$', done.stdout, re.M)
        assert (ROOT / each.file).is_file()
    assert command().stdout == done.stdout


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(name):
    code = (
        f'import sys, runpy; sys.argv = ["mmdyn", "{name}", "--help"]\n'
        f'try: runpy.run_path({str(MMDYN)!r}, run_name="__main__")\n'
        'except SystemExit: pass\n'
        'print(sorted({"torch", "mmengine", "cv2", "numpy"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == '[]', done.stderr
    assert done.stdout.startswith(f'usage: mmdyn {name} ')
    assert not re.search(r'python (tools|demo)/\w+\.py', done.stdout.replace('torchrun', '')) or name == 'browse'


def test_help_takes_little_of_an_import():
    begun = time.perf_counter()
    assert command('train', '--help').returncode == 0
    helped = time.perf_counter()
    subprocess.run([sys.executable, '-c', 'import torch'], check=True)
    assert helped - begun < (time.perf_counter() - helped) / 2


def test_an_unknown_command():
    done = command('trein')
    assert (done.returncode, done.stdout) == (1, '')
    assert 'there is no command trein. Did you mean train? The commands: train, test,' in done.stderr


def test_configs_are_listed_with_their_cost():
    lines = command('configs', 'yolo11n_dynconv-bn').stdout.splitlines()
    assert re.fullmatch(
        r'yolo11n_dynconv-bn_coco +4,630,680 +6\.55', next(x for x in lines if re.match('yolo.*coco', x))
    )
    assert all('yolo11n_dynconv-bn' in line for line in lines[1:])


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'tcsh'])
def test_completion(shell):
    done = command('completion', shell)
    assert done.returncode == 0, done.stderr
    assert 'upcycle' in done.stdout
    assert shell == 'tcsh' or '--imgsz' in done.stdout
    if shell == 'bash':
        assert 'yolo11n_dynconv_coco' in done.stdout
        subprocess.run(['bash', '-n'], input=done.stdout, text=True, check=True)


@pytest.fixture
def labels(tmp_path):
    """A YOLO data set with a blank in its path and in a class name."""
    rng, root = np.random.default_rng(0), tmp_path / 'meine Daten'
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (root / kind / split).mkdir(parents=True)
        for i in range(8):
            image = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
            cv2.imwrite(str(root / f'images/{split}/{i}.png'), image)
            (root / f'labels/{split}/{i}.txt').write_text('1 0.5 0.5 0.25 0.25\n')
    (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: [cat, wild dog]\n')
    return root


@pytest.mark.processes
@pytest.mark.slow
def test_training_on_labels_in_place(labels, tmp_path):
    before = sorted(labels.rglob('*'))
    options = ['--data', labels / 'data.yaml', '--imgsz', '60', '--epochs', 1, '--batch', 4, '--workers', 0]
    environment = {**os.environ, 'MMDYN_CACHE': str(tmp_path / 'cache')}
    done = command('train', 'yolo11n_dynconv_coco', *options, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[:3] == [
        f'data: {labels}/data.yaml, YOLO',
        f'  train: {labels}/images/train; val: {labels}/images/val',
        '  2 classes: cat, wild dog',
    ]
    assert 'image size 60 x 60: rounded up to 64 x 64' in done.stdout
    assert sorted(labels.rglob('*')) == before
    test = done.stdout.splitlines()[-1].removeprefix('Done. To test: mmdyn test ').split()
    assert all((tmp_path / part).is_file() for part in test)
    config = (tmp_path / test[0]).read_bytes()
    again = command('test', *test, '--cfg-options', 'model.test_cfg.max_per_img=200', cwd=tmp_path, env=environment)
    assert (tmp_path / test[0]).read_bytes() == config
    assert again.returncode == 0, again.stderr[-3000:]
    assert 'coco/bbox_mAP: ' in again.stdout + again.stderr


@pytest.mark.slow
def test_browse_writes_a_page(call, labels, tmp_path, monkeypatch):
    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'cache'))
    out = tmp_path / 'page'
    done = call(
        'tools/browse_dataset.py', 'yolo11n_coco', '--data', labels, '--imgsz', '64', '--out-dir', out, '--count', 3
    )
    assert done.returncode == 0, done.stderr
    page = (out / 'index.html').read_text()
    pictures = re.findall(r'src="(pictures/\d+\.jpg)"', page)
    assert len(pictures) == 3
    assert all(cv2.imread(str(out / picture)).shape[0] == 320 for picture in pictures)
    assert '8 images are used of 8; 8 objects of 2 classes.' in page
    assert cv2.imread(str(out / 'statistics.png')) is not None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--imgsz', '0'], 'invalid image size 0 x 0: set both sides to 1 pixel or more'),
        (['--batch', '0'], 'invalid --batch 0: set it to 1 or more'),
        (['--epochs', '-1'], 'invalid --epochs -1: set it to 1 or more'),
        (['--data', 'nowhere'], '--data nowhere: there is no folder or data.yaml at '),
    ],
    ids=str,
)
def test_bad_options_leave_nothing_behind(call, tmp_path, arguments, message):
    work = tmp_path / 'work'
    done = call('tools/train.py', 'yolo11n_coco', '--work-dir', work, *arguments)
    assert (done.returncode, 'Traceback' in done.stderr) == (1, False)
    assert message in done.stderr
    assert not work.exists()


def test_labels_that_are_none_leave_nothing_behind(labels, tmp_path):
    (labels / 'labels/train/3.txt').write_text('2 0.5 0.5 0.1 0.1\n0 1.5 0.5 0.1 0.1\n\n0 0.5 0.5\n')
    environment = {**os.environ, 'MMDYN_CACHE': str(tmp_path / 'cache')}
    done = command('train', 'yolo11n_coco', '--data', labels, cwd=tmp_path, env=environment)
    lines = done.stderr.splitlines()
    begun = lines.index(f'error: {labels}/images/train: 3 lines are not labels:')
    file = f'{labels}/labels/train/3.txt'
    assert done.returncode == 1
    assert [line.partition(': ')[0] for line in lines[begun + 1 : -1]] == [f'  {file}:{number}' for number in (1, 2, 4)]
    assert 'class 2, but the names have the classes 0 to 1' in lines[begun + 1]
    assert not (tmp_path / 'work_dirs').exists()


def test_no_size_is_an_error_of_usage(call):
    done = call('tools/train.py', 'yolo11n_coco', '--imgsz', '3x4x5')
    assert done.returncode == 2
    assert "a number of pixels or HEIGHTxWIDTH, got '3x4x5'" in done.stderr


def test_the_installed_script_is_this_file(tmp_path):
    assert MMDYN.read_text().startswith('#!/usr/bin/env python3\n')
    assert os.access(MMDYN, os.X_OK)
    assert Path(sys.executable).with_name('mmdyn').is_file(), 'pip install -e . --no-deps installs it'
