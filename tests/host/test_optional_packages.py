"""A broken optional package does not stop ``import mmdyn``, and is named."""

import sys

import pytest

from mmdyn.host import optional_packages


def test_absent_and_whole_packages_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(optional_packages, 'OPTIONAL', {'wholepackage': ('wholepackage.part',), 'nopackage': ()})
    (tmp_path / 'wholepackage').mkdir()
    for name in ('__init__', 'part'):
        (tmp_path / f'wholepackage/{name}.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    optional_packages.treat_broken_as_absent()
    assert 'nopackage' not in sys.modules
    assert sys.modules.pop('wholepackage.part').__name__ == 'wholepackage.part'
    (tmp_path / 'wholepackage/part.py').write_text('1 / 0')
    del sys.modules['wholepackage']
    with pytest.warns(UserWarning, match='wholepackage raises ZeroDivisionError'):
        optional_packages.treat_broken_as_absent()
    assert sys.modules.pop('wholepackage') is None


@pytest.mark.slow
def test_a_broken_optional_package_is_named_and_treated_as_absent(run, tmp_path):
    for name, text in {
        'mmpose/__init__.py': '',
        'mmpose/datasets.py': 'import brokenapi',
        'brokenapi/__init__.py': "raise ValueError('numpy.dtype size changed')",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = "import mmdyn\ntry:\n    import mmpose\nexcept ImportError:\n    print('absent')"
    done = run('-W', 'always', '-c', code, env=dict(PYTHONPATH=str(tmp_path)))
    assert (done.returncode, done.stdout.strip()) == (0, 'absent'), done.stderr[-2000:]
    assert 'mmpose is installed but cannot be imported, because brokenapi raises ValueError: numpy.dtype' in done.stderr
    assert 'Install a brokenapi that fits this NumPy, or uninstall mmpose' in done.stderr
