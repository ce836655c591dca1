"""The wheel: built, unpacked elsewhere and used from there, configs and tools included."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


def build_wheel(source, folder):
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the tree, so that what building leaves behind is not here."""
    folder = tmp_path_factory.mktemp('source') / 'mmdyn'
    ignore = shutil.ignore_patterns('.venv', '.git', 'data', 'work_dirs', 'demo_output', 'build', '*.egg-info')
    return shutil.copytree(ROOT, folder, symlinks=True, ignore=ignore)


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp('wheel'))


def test_wheel_holds_what_mim_looks_for(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ('configs', 'tools', 'demo'):
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / kind).rglob('*') if p.suffix in ('.py', '.sh', '.yml')}
        assert {f'mmdyn/.mim/{name}' for name in here} <= names
    assert 'mmdyn/.mim/model-index.yml' in names
    assert 'mmdyn/ablation/report.html.jinja' in names
    assert not [name for name in names if name.startswith(('tests/', 'tools/', 'configs/'))]


def test_wheel_works_from_any_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    (tmp_path / 'elsewhere').mkdir()
    mim = tmp_path / 'site/mmdyn/.mim'
    done = subprocess.run(
        [sys.executable, '-P', mim / 'tools/get_flops.py', mim / 'configs/yolo11n_dynconv_coco.py', '--shape', '64'],
        cwd=tmp_path / 'elsewhere',
        env={**os.environ, 'PYTHONPATH': f'{tmp_path / "site"}:{mim / "tools"}'},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert 'parameters  4,629,336' in done.stdout


def test_mim_trains(wheel, digits, tmp_path):
    pytest.importorskip(
        'mim', reason='needs openmim, whose own requirements exclude current ones: pip install --no-deps'
    )
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', tmp_path / 'site', wheel], check=True
    )
    command = [sys.executable, '-P', '-m', 'mim', 'train', 'mmdyn', 'yolo11n_digits.py', '--gpus', '0']
    done = subprocess.run(
        [*command, '--data', str(digits), '--imgsz', '64', '--epochs', '1', '--work-dir', str(tmp_path / 'run')],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': f'{tmp_path / "site"}:{os.environ.get("PYTHONPATH", "")}'},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert 'Training finished successfully' in done.stdout
    assert f'To test: mmdyn test {tmp_path / "run"}' in done.stdout


def test_every_metafile_entry_is_a_config():
    import yaml

    entries = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())['Models']
    assert len(entries) == 75
    assert all((ROOT / entry['Config']).is_file() for entry in entries)


def test_source_distribution_builds_the_same_wheel(source, wheel, tmp_path):
    command = [sys.executable, 'setup.py', '-q', 'sdist', '-d', tmp_path]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    again = build_wheel(next(tmp_path.glob('*.tar.gz')), tmp_path)
    code = [{n for n in zipfile.ZipFile(w).namelist() if 'dist-info' not in n} for w in (wheel, again)]
    assert code[0] == code[1]
