"""The notebook in docs: it was run to its end, its cells are those of the script that makes it, and they run."""

import json
import runpy

import pytest

from conftest import ROOT

NOTEBOOK = ROOT / 'docs/notebook.ipynb'


def code_cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())['cells'] if cell['cell_type'] == 'code']


def test_the_notebook_was_run_to_its_end():
    for number, cell in enumerate(code_cells(), 1):
        assert cell['execution_count'] == number
        assert not [output for output in cell['outputs'] if output['output_type'] == 'error']
        text = ''.join(''.join(output.get('text', ())) for output in cell['outputs'])
        assert 'error:' not in text
        assert 'Traceback' not in text
        assert str(ROOT) not in text
    last = ''.join(code_cells()[-1]['outputs'][0]['text'])
    assert 'objects with ONNX Runtime' in last
    pictures = [o for cell in code_cells() for o in cell['outputs'] if 'image/png' in o.get('data', {})]
    assert len(pictures) == 1


def test_the_cells_are_those_of_the_script():
    pytest.importorskip('nbclient', reason='needs requirements/dev.txt')
    script = runpy.run_path(str(ROOT / 'docs/make_notebook.py'))
    written = [(cell['cell_type'], ''.join(cell['source'])) for cell in json.loads(NOTEBOOK.read_text())['cells']]
    assert [(cell['cell_type'], cell['source']) for cell in script['CELLS']] == written


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path):
    pytest.importorskip('nbclient', reason='needs requirements/dev.txt')
    script = runpy.run_path(str(ROOT / 'docs/make_notebook.py'))
    script['make'](tmp_path / 'notebook.ipynb')
    cells = json.loads((tmp_path / 'notebook.ipynb').read_text())['cells']
    assert all(cell['execution_count'] for cell in cells if cell['cell_type'] == 'code')
