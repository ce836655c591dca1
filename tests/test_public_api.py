"""What the package offers, and which way its imports go."""

import ast
import importlib

import pytest

from conftest import ROOT

PACKAGES = ['mmdyn', 'mmdyn.convert', 'mmdyn.datasets', 'mmdyn.engine', 'mmdyn.host', 'mmdyn.layers', 'mmdyn.models']
# Later rooms may import earlier ones.
ORDER = [
    'version',
    'errors',
    'registry',
    'host',
    'layers',
    'models',
    'datasets',
    'engine',
    'analysis',
    'ablation',
    'convert',
    'deploy',
]
SOURCES = sorted((ROOT / 'mmdyn').glob('*/*.py'))


@pytest.mark.parametrize('package', PACKAGES)
def test_everything_promised_is_there(package):
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(module.__all__) == len(set(module.__all__))


def test_version_is_read_without_importing():
    import mmdyn

    assert f"'{mmdyn.__version__}'" in (ROOT / 'mmdyn/version.py').read_text()


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: f'{p.parent.name}/{p.name}')
def test_imports_point_one_way(path):
    own = ORDER.index(path.parent.name)
    rooms = [name.split('.')[1] for name in imports(path) if name.startswith('mmdyn.')]
    assert all(ORDER.index(room) <= own for room in rooms), rooms
    if path.parent.name == 'layers':
        assert not [name for name in imports(path) if name.split('.')[0] in ('mmdet', 'mmyolo')]


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: f'{p.parent.name}/{p.name}')
def test_files_are_short_and_named_for_what_they_do(path):
    assert path.stem not in ('utils', 'misc', 'common', 'helpers')
    assert len(path.read_text().splitlines()) <= 250
