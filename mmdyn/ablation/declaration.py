"""The declaration of a comparison: what is decided before its first run, and not changed after it.

A contrast that is chosen after the results are seen is no evidence. ``WORK_DIR/plan.json`` states the primary contrast,
its margin, the looks at growing data and the score, with the date; it is written before anything is trained. Every
recorded config has a copy, so that a file that was changed or removed afterwards is noticed.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmdyn.errors import UserError
from mmdyn.files import write_text

from .runs import recorded_arms, recorded_runs

PLAN_NAME = 'plan.json'
PLAN_KEY = 'comparison_plan'  # of a recorded config
STARTS = 'starts'  # folder of the runs that all arms start from
MOST_LOOKS = 5
KINDS = dict(control=str, primary=str, margin=float, looks=list, last=int, start_epochs=int, date=str)


class Declaration(NamedTuple):
    """What a comparison states beforehand."""

    control: str  # the arm that others are compared with
    primary: str | None = None  # the arm of the one contrast that is decided on; the others are exploratory
    margin: float | None = None  # the largest difference to the control that does not matter
    looks: tuple[int, ...] = ()  # numbers of pairs at which the primary contrast is tested
    last: int = 1  # the score of a run is the mean of this many of its last validations
    start_epochs: int = 0  # epochs of the control, once for each seed, that all arms start from; 0 for none
    date: str = ''  # when it was written

    def check(self, arms: dict[str, Config]) -> None:
        """Check it against the arms.

        Raises:
            UserError: A value is invalid, or the primary arm is not there.
        """
        if (self.primary is None) != (self.margin is None):
            raise UserError('--primary and --margin belong together: the contrast, and what difference would matter')
        if self.primary is not None and (self.primary not in arms or self.primary == self.control):
            others = ', '.join(name for name in arms if name != self.control)
            raise UserError(f'--primary must be one of the arms {others}, got {self.primary!r}')
        if self.margin is not None and not 0 < self.margin < 1:
            raise UserError(f'--margin must be between 0 and 1, as the score is, got {self.margin}')
        growing = list(self.looks) == sorted(set(self.looks)) and all(n >= 2 for n in self.looks)
        if not growing or len(self.looks) > MOST_LOOKS:
            raise UserError(
                f'--looks must be at most {MOST_LOOKS} growing numbers of pairs, from 2, got {list(self.looks)}'
            )
        if self.primary is not None and not self.looks:
            raise UserError(
                '--primary needs the number of pairs at which it is decided: set --seeds of at least 2, or --looks'
            )
        if self.looks and self.primary is None:
            raise UserError('--looks are at the primary contrast: set --primary and --margin, too')
        validations = min(count_validations(cfg) for cfg in arms.values())
        if not 1 <= self.last <= validations:
            raise UserError(f'--last must be from 1 to the {validations} validations of a run, got {self.last}')
        if self.start_epochs < 0:
            raise UserError(f'--start-epochs must be at least 0, got {self.start_epochs}')


def count_validations(cfg: Config) -> int:
    """How often a run is validated."""
    loop = cfg.train_cfg
    begin, every, epochs = loop.get('val_begin', 1), loop.get('val_interval', 1), loop.max_epochs
    due = {epoch for epoch in range(1, epochs + 1) if epoch % every == 0} | {epochs}
    return max(1, len([epoch for epoch in due if epoch >= begin]))


def _from_content(content: Any, source: Path) -> Declaration:
    whole = isinstance(content, dict) and content.keys() <= KINDS.keys() and 'control' in content
    if not whole or not all(v is None or isinstance(v, KINDS[k]) for k, v in content.items()):
        raise UserError(f'{source} is not the plan of a comparison')
    return Declaration(**content | dict(looks=tuple(content.get('looks', ()))))


def read_declaration(work_dir: Path) -> Declaration | None:
    """The declaration of a folder, if it has one.

    Raises:
        UserError: The file is damaged, or was changed after the first run.
    """
    path = work_dir / PLAN_NAME
    configs = recorded_arms(work_dir).values()
    stated = [_from_content(cfg[PLAN_KEY].to_dict(), path) for cfg in configs if PLAN_KEY in cfg]
    if not path.is_file():
        return stated[0] if stated and _is_begun(work_dir) else None
    try:
        found = _from_content(json.loads(path.read_text()), path)
    except json.JSONDecodeError as e:
        raise UserError(f'{path} is not the plan of a comparison: {e}') from e
    for copy in stated if _is_begun(work_dir) else ():
        if copy != found:
            raise UserError(f'{path} was changed after the first run: {_changes(copy, found)}. Change it back')
    return found


def _changes(before: Declaration, now: Declaration) -> str:
    pairs = zip(before._asdict().items(), now, strict=True)
    return '; '.join(f'{name} was {was!r} and is {value!r} now' for (name, was), value in pairs if was != value)


def _is_begun(work_dir: Path) -> bool:
    """Whether a run of the folder was started."""
    return bool(recorded_runs(work_dir)) or any(work_dir.glob('*/*/seed_*'))


def declared(work_dir: Path, control: str, given: dict[str, Any], arms: dict[str, Config]) -> Declaration:
    """The declaration of a call: that of the folder, or a new one.

    Args:
        work_dir: Folder of the comparison.
        control: Name of the control.
        given: The fields that the call states.
        arms: The configs of the call by name.

    Returns:
        The declaration. Nothing is written, see :func:`write_declaration`.

    Raises:
        UserError: It differs from that of the folder, and a run was started; or as in :meth:`Declaration.check`.
    """
    # lists of the command line as tuples
    stated: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if not _is_begun(work_dir):
        found = Declaration(control)._replace(**stated)
        found.check(arms)
        return found._replace(date=date.today().isoformat())
    before = read_declaration(work_dir) or Declaration(control)  # a folder of an earlier version
    now = before._replace(**stated)
    if before.primary is not None or before.start_epochs:
        now = now._replace(control=control)
    if now != before:
        raise UserError(
            f'the plan in {work_dir / PLAN_NAME} was changed after its first run: {_changes(before, now)}. '
            'Give another --work-dir for another plan'
        )
    return before


def start_checkpoint(work_dir: Path, declaration: Declaration, seed: int) -> Path:
    """The checkpoint of the control that all arms of a seed start from."""
    return work_dir / STARTS / declaration.control / f'seed_{seed}' / f'epoch_{declaration.start_epochs}.pth'


def write_declaration(declaration: Declaration, work_dir: Path) -> None:
    """Write it, unless a run was started. The caller holds the lock."""
    if not _is_begun(work_dir):
        write_text(work_dir / PLAN_NAME, json.dumps(declaration._asdict(), indent=2) + '\n')
