"""The error that a user can correct: its message names what is invalid, the value, and what to set.

The command-line tools print it without a traceback and exit with 1.
"""

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
