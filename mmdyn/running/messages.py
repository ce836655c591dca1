"""Messages: prints an error that a user can correct as one line on stderr, and explains errors in a config."""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.registry import Registry, root

from mmdyn.errors import UserError

DEBUG = 'MMDYN_DEBUG'


def exit_code(command: Callable[[], None]) -> int:
    """Run a command; print an error that a user can correct as one message instead of a traceback.

    Args:
        command: The function to run.

    Returns:
        0, or 1 after an error. ``MMDYN_DEBUG=1`` in the environment adds the traceback.
    """
    try:
        command()
    except UserError as e:
        _print_error(str(e))
        return 1
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            _print_error(
                f'the disk is full, writing {e.filename or "a file of the run"}. '
                'Earlier checkpoints are intact: free space and continue with --resume'
            )
        elif isinstance(e, FileNotFoundError) and e.filename:
            _print_error(f'there is no {Path(os.fsdecode(e.filename)).absolute()} ({DEBUG}=1 adds the traceback)')
        else:
            _print_error(f'{e} ({DEBUG}=1 adds the traceback)')
        return 1
    return 0


def _print_error(message: str) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    # names from untrusted files must not contain terminal control sequences
    shown = ''.join(c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in message)
    print(f'error: {shown}', file=sys.stderr)


@contextmanager
def config_errors() -> Iterator[None]:
    """Turn errors of constructors about config values into a ``UserError``."""
    try:
        yield
    except KeyError as e:
        unknown = re.match(r'(\S+) is not in the \S*?(?:::)?([\w ]+) registry', str(e.args[0]) if e.args else '')
        if unknown is None:
            raise UserError(f'the config lacks {e}') from e
        raise UserError(_unknown_type(*unknown.groups())) from e
    except (TypeError, ValueError, AssertionError) as e:
        raise UserError(f'the config does not build: {e} ({DEBUG}=1 adds the traceback)') from e


def _unknown_type(name: str, registry: str) -> str:
    names = _names(registry)
    if name in names:
        return (
            f"the scope of the config has no {registry} of type '{name}': set default_scope='mmyolo', or that of its "
            'package'
        )
    near = difflib.get_close_matches(name.split('.')[-1], sorted(names), n=3, cutoff=0.5)
    hint = f'Did you mean {" or ".join(near)}?' if near else 'Is the package that has it in custom_imports?'
    return f"there is no {registry} of type '{name}'. {hint}"


def _names(kind: str) -> set[str]:
    """Names in a kind of registry, of all scopes."""

    def below(registry: Registry) -> set[str]:
        return set(registry.module_dict).union(*(below(child) for child in registry.children.values()))

    registries = [r for r in vars(root).values() if isinstance(r, Registry) and r.name == kind]
    return set().union(*(below(r) for r in registries))
