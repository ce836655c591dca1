"""The wheel: built, unpacked elsewhere and used from there, configs and tools included."""

import os
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '-q',
        '--no-deps',
        '--no-build-isolation',
        '-w',
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob('*.whl'))


def test_wheel_holds_what_mim_looks_for(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ('configs', 'tools', 'demo'):
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / kind).rglob('*') if p.suffix in ('.py', '.sh', '.yml')}
        assert {f'mmdyn/.mim/{name}' for name in here} <= names
    assert 'mmdyn/.mim/model-index.yml' in names
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


def test_every_metafile_entry_is_a_config():
    import yaml

    entries = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())['Models']
    assert len(entries) == 15
    assert all((ROOT / entry['Config']).is_file() for entry in entries)
