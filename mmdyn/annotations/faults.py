"""Lines of label files that are not labels: where they are, and why."""

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


def refuse_faults(what: str, faults: Sequence[Fault]) -> None:
    """Stop if there are any, and show the first ones.

    Args:
        what: What was read.
        faults: What is wrong with it.

    Raises:
        UserError: There is one.
    """
    if not faults:
        return
    more = f'\n  and {len(faults) - SHOWN_LINES} more' if len(faults) > SHOWN_LINES else ''
    shown = '\n  '.join(map(str, faults[:SHOWN_LINES]))
    raise UserError(f'{what}: {len(faults)} lines are not labels:\n  {shown}{more}\nCorrect or remove them')
