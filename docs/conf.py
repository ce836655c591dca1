"""Sphinx: these pages, and the API from the docstrings. `make docs` builds it, warnings are errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmdyn

project, author = 'mmdyn', 'the mmdyn developers'
release = mmdyn.__version__
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build', 'study/*/report.md']  # the study links the reports as files
templates_path = ['_templates']
html_theme = 'furo'
html_static_path, html_css_files = ['_static'], ['cards.css']
html_title = f'mmdyn {release}'
nitpicky = False  # the hosts publish no inventory that we could link to
myst_heading_anchors = 3
myst_enable_extensions = ['colon_fence']
autosummary_generate = True
autodoc_mock_imports = ['mmpretrain']  # of classification, which is optional
autodoc_inherit_docstrings = False  # the hosts' docstrings are theirs
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_google_docstring, napoleon_numpy_docstring = True, False
suppress_warnings = ['config.cache']


def skip_fields(app, what, name, obj, skip, options):
    """Fields of named tuples, which the signature has already."""
    return skip or (getattr(obj, '__doc__', None) or '').startswith('Alias for field number')


INCLUDED = {
    '](../benchmarks/README.md': '](benchmarks_layer.md',
    '](../CHANGELOG.md': '](changelog.md',
    '](../CONTRIBUTING.md': '](contributing.md',
}


def link_included(app, docname, source):
    """Links to files outside docs/ go to the pages that include them; in the repository they work as they are."""
    for file, page in INCLUDED.items():
        source[0] = source[0].replace(file, page)


def setup(app):
    """Connect the hooks: Sphinx calls this."""
    app.connect('autodoc-skip-member', skip_fields)
    app.connect('source-read', link_included)
