"""README and pages: short, without dead links, with examples that run."""

import doctest
import re

import pytest

from conftest import ROOT

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', ROOT / 'benchmarks/README.md']
PAGES += sorted((ROOT / 'docs').glob('*.md'))
LINK = re.compile(r'\]\(([^)\s]+)\)')
FENCED = re.compile(r'^```.*?^```', re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub and MyST make them."""
    headings = re.findall(r'^#+ (.+)$', FENCED.sub('', text), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def dead_links(page) -> list[str]:
    dead = []
    for link in LINK.findall(FENCED.sub('', page.read_text())):
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        if '://' in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    return dead


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_dead_links(page):
    assert dead_links(page) == []


def test_a_dead_link_is_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A page\n[one](#a-page) [two](missing.md) [three](#missing) [four](https://example.org)\n')
    assert dead_links(page) == ['missing.md', '#missing']


def test_the_readme_is_short():
    lines = (ROOT / 'README.md').read_text().splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 160


def test_the_layer_is_the_plain_loop_of_the_page():
    page = str(ROOT / 'docs/how_it_works.md')
    result = doctest.testfile(page, module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


def test_every_config_and_tool_that_a_page_names_is_there():
    named = {
        name
        for page in PAGES
        if page.name != 'CHANGELOG.md'
        for name in re.findall(r'(?<![\w/])((?:configs|tools|demo|benchmarks)/[\w/.-]+\.(?:py|sh))\b', page.read_text())
    }
    own = {'configs/mine.py', 'configs/mine_dynamic.py'}  # written by the reader
    assert len(named) > 20
    assert sorted(name for name in named - own if not (ROOT / name).is_file()) == []
