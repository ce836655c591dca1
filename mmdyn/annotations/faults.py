"""What is wrong with lines of label files and with other files: the first faults in one message."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmdyn.errors import UserError

SHOWN_LINES = 5


class Fault(NamedTuple):
    """A line that is not a label."""

    file: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f'{self.file}:{self.line}: {self.why}'


def refuse_faults(what: str, faults: Sequence[object], cure: str = 'Correct or remove them') -> None:
    """Stop if there are any, and show the first ones.

    Args:
        what: What is wrong with them.
        faults: Each as one line.
        cure: What to do.

    Raises:
        UserError: There is one.
    """
    if not faults:
        return
    more = f'\n  and {len(faults) - SHOWN_LINES} more' if len(faults) > SHOWN_LINES else ''
    shown = '\n  '.join(map(str, faults[:SHOWN_LINES]))
    raise UserError(f'{what}:\n  {shown}{more}\n{cure}')
