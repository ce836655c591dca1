"""The command line of a run, for the sweep, for Slurm, and for manual use."""

import shlex
import sys
from pathlib import Path

from mmengine.config import Config

from mmdyn.files import write_text

from .declaration import STARTS, read_declaration, start_checkpoint
from .runs import LOG_NAME, Run


def command_of(run: Run, train_tool: str | Path) -> list[str]:
    """The command line of a run.

    Args:
        run: Config, seed and folder.
        train_tool: Path of ``tools/train.py``.
    """
    paths = [short(train_tool), short(run.config), '--work-dir', short(run.folder), '--resume']
    amp = ['--amp'] if Config.fromfile(run.config).get('amp') else []
    work_dir = run.folder.parent.parent
    plan = read_declaration(work_dir) if (work_dir / STARTS).is_dir() else None  # it reads every config
    start = [f'load_from={short(start_checkpoint(work_dir, plan, run.seed))}'] if plan and plan.start_epochs else []
    return [short(sys.executable), *paths, *amp, '--cfg-options', f'randomness.seed={run.seed}', *start]


def short(path: str | Path) -> str:
    """Shorten a path for a command line.

    Args:
        path: The path; one below the current folder becomes relative.
    """
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def write_commands(runs: list[Run], train_tool: str | Path, path: Path) -> None:
    """Write the command of every run, one per line, for manual use or a scheduler.

    Args:
        runs: Runs in the order of the lines.
        train_tool: Path of ``tools/train.py``.
        path: File to write.
    """
    lines = [f'mkdir -p {shlex.quote(short(run.folder))} && {log_line(run, train_tool)}' for run in runs]
    write_text(path, '\n'.join(lines) + '\n')


def log_line(run: Run, train_tool: str | Path) -> str:
    """The command line of a run with its output redirected to its log.

    Args:
        run: Config, seed and folder.
        train_tool: Path of ``tools/train.py``.
    """
    return f'{shlex.join(command_of(run, train_tool))} >> {shlex.quote(short(run.folder / LOG_NAME))} 2>&1'
