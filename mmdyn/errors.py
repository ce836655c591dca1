"""The error that a user can correct: its message names what is invalid, the value, and what to set.

The command-line tools print it without a traceback and exit with 1.
"""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """An invalid input, file or setting; the message says how to correct it."""


def listed_classes(names: Sequence[object], shown: int = 8) -> str:
    """The number of classes and the first names, for a message.

    Example:
        >>> listed_classes(['cell']), listed_classes(range(80), shown=2)
        ('1 class: cell', '80 classes: 0, 1, …')
    """
    classes = 'class' if len(names) == 1 else 'classes'
    return f'{len(names)} {classes}: {", ".join(map(str, names[:shown]))}{", …" if len(names) > shown else ""}'


def class_number(given: str | int, names: Sequence[str]) -> int:
    """The index of a class.

    Args:
        given: Its name, or its number from 0.
        names: Names of all classes.

    Raises:
        UserError: There is no such class; similar names are suggested.

    Example:
        >>> class_number('dog', ['cat', 'dog']), class_number('0', ['cat', 'dog'])
        (1, 0)
    """
    given = str(given)
    if given in names:
        return names.index(given)
    if given.isdecimal() and int(given) < len(names):
        return int(given)
    near = difflib.get_close_matches(given, names, n=3)
    hint = f'Did you mean {" or ".join(near)}?' if near else f'There are {listed_classes(names)}'
    raise UserError(f'there is no class {given!r}. {hint}')
