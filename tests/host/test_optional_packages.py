"""A broken optional package does not stop ``import mmdyn``, and is named."""

import pytest


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
