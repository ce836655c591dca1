"""Mutation test: small faults drawn by chance, and whether the tests that import the changed file notice them.

    python tests/mutants.py --count 40 --seed 0 --out mutants.json     # goes on where it was stopped

Files are drawn by their number of lines, so rooms are weighted by theirs; then one of the file's places where an
operator applies:

- a comparison: ``<`` and ``<=``, ``>`` and ``>=``, ``==`` and ``!=``, ``is`` and ``is not``, ``in`` and ``not in``
- arithmetic: ``+`` and ``-``, ``*`` and ``/``, ``//`` and ``%``
- ``and`` and ``or``; a ``not`` left out; the condition of an ``if`` negated
- a number plus one; ``True`` and ``False``

The tree is copied, so nothing is changed in place. A mutant is killed by a failing test or a timeout; its quick tests
run before its slow ones.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 900
SWAPPED: dict[type, type] = {}
for _one, _other in (
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
    (ast.FloorDiv, ast.Mod),
    (ast.And, ast.Or),
):
    SWAPPED |= {_one: _other, _other: _one}


def faults(tree: ast.Module) -> list[tuple[ast.AST, str]]:
    """Nodes that can be changed, and how; docstrings, annotations and ``__all__`` are none."""
    found: list[tuple[ast.AST, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
            found.append((node, 'comparison'))
        elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPPED:
            found.append((node, 'operator'))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            found.append((node, 'not'))
        elif isinstance(node, ast.If | ast.IfExp):
            found.append((node, 'condition'))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            found.append((node, 'constant'))
    annotations = {id(n) for a in ast.walk(tree) for n in _annotation_nodes(a)}
    return [(node, kind) for node, kind in found if id(node) not in annotations]


def _annotation_nodes(node: ast.AST):
    for field in ('annotation', 'returns'):
        if getattr(node, field, None) is not None:
            yield from ast.walk(getattr(node, field))


def change(node, kind: str) -> None:
    """Make the fault, in place."""
    if kind == 'comparison':
        node.ops[0] = SWAPPED[type(node.ops[0])]()
    elif kind == 'operator':
        node.op = SWAPPED[type(node.op)]()
    elif kind == 'not':
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
    elif kind == 'condition':
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1


def draw(root: Path, count: int, seed: int) -> list[dict]:
    """The mutants of a seed: file, line, what was there and what is there now."""
    files = sorted(p for p in (root / 'mmdyn').rglob('*.py') if '.mim' not in p.parts and not p.is_symlink())
    lines = [len(p.read_text().splitlines()) for p in files]
    rng, mutants = random.Random(seed), []
    while len(mutants) < count:
        file = rng.choices(files, lines)[0]
        tree = ast.parse(file.read_text())
        places = faults(tree)
        if not places:
            continue
        node, kind = rng.choice(places)
        before = ast.unparse(copy.deepcopy(node)).splitlines()[0]
        change(node, kind)
        after = ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]
        name = file.relative_to(root).as_posix()
        mutants.append(dict(file=name, line=node.lineno, kind=kind, before=before, after=after, text=ast.unparse(tree)))
    return mutants


def _modules_of(path: Path, root: Path) -> set[str]:
    """Modules that a test file imports, with those that define what it takes from a package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update([node.module, *(f'{node.module}.{alias.name}' for alias in node.names)])
            package = root / node.module.replace('.', '/') / '__init__.py'
            if package.is_file():
                found |= _defining(package, {alias.name for alias in node.names}, root)
    return found


def _defining(package: Path, names: set[str], root: Path) -> set[str]:
    own = package.parent.relative_to(root).as_posix().replace('/', '.')
    found: set[str] = set()
    for node in ast.walk(ast.parse(package.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        module = f'{own}.{node.module}' if node.level else node.module
        if {alias.name for alias in node.names} & (names | {'*'}):
            below = root / module.replace('.', '/') / '__init__.py'
            found |= {module, *(_defining(below, names, root) if below.is_file() else ())}
    return found


def tests_of(file: str, root: Path) -> list[str]:
    """Test files that import a file of the package; those that import its room where there are none."""
    module = file.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
    tests = [p for p in sorted((root / 'tests').rglob('test_*.py')) if 'parity' not in p.parts]
    imported = {p: _modules_of(p, root) for p in tests}
    for name in (module, module.rpartition('.')[0]):
        chosen = [p for p, modules in imported.items() if name in modules]
        if chosen:
            return [p.relative_to(root).as_posix() for p in chosen]
    return []


def run(mutant: dict, tree: Path) -> dict:
    """Put a mutant into a copy of the tree and run its tests, the quick ones first."""
    file, tests = tree / mutant['file'], tests_of(mutant['file'], tree)
    before = file.read_text()
    file.write_text(mutant['text'])
    status: int | str = 0
    try:
        for speed in ('not slow', 'slow and not long'):
            status = status or pytest_status(tree, '-x', '-m', speed, *tests)
    finally:
        file.write_text(before)
    return {k: v for k, v in mutant.items() if k != 'text'} | dict(tests=tests, status=status, killed=status != 0)


def pytest_status(tree: Path, *arguments: str) -> int | str:
    """Exit status of pytest in a tree; no test to run is no failure."""
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:warnings', *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': '1'}
    try:
        status = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        return 'timeout'
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=40, help='mutants to draw (40)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (0)')
    parser.add_argument('--tree', type=Path, default=ROOT, help='checkout to test (this one)')
    parser.add_argument('--out', type=Path, default=Path('mutants.json'), help='results, also where to go on from')
    args = parser.parse_args()
    done = json.loads(args.out.read_text()) if args.out.is_file() else []
    mutants = draw(args.tree, args.count, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns('.venv', '.git', 'work_dirs', 'data', '*_output', '_build')
        tree = shutil.copytree(args.tree, Path(folder, 'tree'), symlinks=True, ignore=ignored)
        if pytest_status(tree, '--collect-only', 'tests'):
            sys.exit(f'the tests in {args.tree} do not load: nothing would be measured')
        for mutant in tqdm(mutants[len(done) :], initial=len(done), total=len(mutants), unit='mutant'):
            done.append(run(mutant, tree))
            args.out.write_text(json.dumps(done, indent=1))
    survivors = [m for m in done if not m['killed']]
    for m in survivors:
        print(f'survived: {m["file"]}:{m["line"]} {m["before"]!r} -> {m["after"]!r} ({" ".join(m["tests"])})')
    print(f'{len(done) - len(survivors)} of {len(done)} mutants killed')


if __name__ == '__main__':
    main()
