"""The sweep: every run of a plan in a process of its own, by ``tools/train.py``, until all are done.

A run is what ``tools/train.py CONFIG --resume`` makes of its folder, so it goes on where it was stopped, and a finished
one is left alone. One that fails does not stop the others.
"""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from mmdyn.engine.checkpoint import AtomicLocalBackend
from mmdyn.errors import UserError

from .plan import Plan, Run
from .runs import LOG_NAME, METRIC, read_run, records_of

POLL_S = 1.0


def command_of(run: Run, train_tool: str | Path) -> list[str]:
    """The command line of a run.

    Args:
        run: The run.
        train_tool: Path of ``tools/train.py``.
    """
    paths = [_short(train_tool), _short(run.config), '--work-dir', _short(run.folder), '--resume']
    return [_short(sys.executable), *paths, '--cfg-options', f'randomness.seed={run.seed}']


def _short(path: str | Path) -> str:
    """A path as one would type it here."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextlib.contextmanager
def locked(work_dir: Path) -> Iterator[int]:
    """Keep other sweeps out of a folder.

    Args:
        work_dir: The folder.

    Yields:
        Descriptor of the lock; a process that has it holds the folder too.

    Raises:
        UserError: Another sweep, or a run of one that was killed, is at work there.
    """
    with (work_dir / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f'another sweep is at work in {work_dir}, or a run that it began. Wait for it, stop it, or give '
                'another --work-dir'
            ) from e
        yield file.fileno()


def run_all(plan: Plan, train_tool: str | Path, jobs: int = 1) -> list[Run]:
    """Train what is not trained yet, with a progress bar.

    Args:
        plan: Configs and seeds.
        train_tool: Path of ``tools/train.py``.
        jobs: Runs at a time; they share the cores, or the GPUs.

    Returns:
        Runs that failed.

    Raises:
        UserError: Another sweep is at work in the folder.
    """
    with locked(plan.work_dir) as lock:
        waiting = [run for run in plan.runs() if not read_run(run).done]
        with Progress(plan) as progress, _terminated_as_interrupted():
            return _run_waiting(waiting, train_tool, jobs, lock, progress)


def _run_waiting(waiting: list[Run], train_tool: str | Path, jobs: int, lock: int, progress: 'Progress') -> list[Run]:
    failed: list[Run] = []
    running: dict[int, tuple[Run, subprocess.Popen]] = {}
    try:
        while waiting or running:
            for place in set(range(jobs)) - set(running):
                if waiting:
                    run = waiting.pop(0)
                    running[place] = run, _start(run, train_tool, _share(place, jobs), lock)
            time.sleep(POLL_S)
            progress.show([run for run, _ in running.values()])
            for place, (run, process) in list(running.items()):
                if process.poll() is not None:
                    del running[place]
                    error = read_run(run).error
                    if error is not None:
                        failed.append(run)
                        progress.bar.write(f'{run.arm}, seed {run.seed} failed: {error} ({run.folder / LOG_NAME})')
        return failed
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def _start(run: Run, train_tool: str | Path, environment: dict[str, str], lock: int) -> subprocess.Popen:
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG_NAME).open('a') as log:
        return subprocess.Popen(
            command_of(run, train_tool),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            pass_fds=[lock],
        )


def _share(place: int, jobs: int) -> dict[str, str]:
    """Environment of a run that shares the machine."""
    if jobs == 1:
        return {}
    gpus = torch.cuda.device_count()
    if gpus:
        return {'CUDA_VISIBLE_DEVICES': str(place % gpus)}
    return {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // jobs))}


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A sweep that is told to end ends its runs, too."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Progress:
    """A bar over the epochs of all runs.

    Args:
        plan: Configs and seeds.
    """

    def __init__(self, plan: Plan) -> None:
        self.epochs = plan.epochs
        self.reached = {run: _epoch(run, plan.epochs) for run in plan.runs()}
        self.bar = tqdm(total=len(self.reached) * plan.epochs, initial=sum(self.reached.values()), unit='epoch')

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def show(self, running: list[Run]) -> None:
        """Read how far some runs are.

        Args:
            running: Those that may have moved.
        """
        for run in running:
            self.reached[run] = max(_epoch(run, self.epochs), self.reached[run])
        self.bar.set_description(', '.join(f'{run.arm} seed {run.seed}' for run in running), refresh=False)
        self.bar.update(sum(self.reached.values()) - self.bar.n)


def _epoch(run: Run, epochs: int) -> int:
    """Last epoch that a run has finished."""
    steps = [r['step'] if METRIC in r else r.get('epoch', 1) - 1 for r in records_of(run.folder) if 'step' in r]
    return min(max(steps, default=0), epochs)


def write_commands(runs: list[Run], train_tool: str | Path, path: Path) -> None:
    """Write the command of every run, a line each, to be run by hand or by a scheduler.

    Args:
        runs: The runs.
        train_tool: Path of ``tools/train.py``.
        path: File to write.
    """
    lines = [
        f'mkdir -p {shlex.quote(_short(run.folder))} && {shlex.join(command_of(run, train_tool))} '
        f'>> {shlex.quote(_short(run.folder / LOG_NAME))} 2>&1'
        for run in runs
    ]
    AtomicLocalBackend().put(('\n'.join(lines) + '\n').encode(), str(path))


SLURM = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --output=/dev/null
# Partition, time and devices are yours to add:
#   sbatch --partition P --gres gpu:1 --cpus-per-task 8 --time 24:00:00 {path}
# Submitting it again continues what was stopped; a finished run ends at once.
cd {cwd}
bash -c "$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {commands})"
"""


def write_slurm(plan: Plan, train_tool: str | Path, jobs: int | None = None) -> Path:
    """Write an array script for Slurm, a task for every run that is not done.

    Args:
        plan: Configs and seeds.
        train_tool: Path of ``tools/train.py``.
        jobs: Tasks at a time; None leaves it to Slurm.

    Returns:
        The script.

    Raises:
        UserError: Every run is done.
    """
    waiting = [run for run in plan.runs() if not read_run(run).done]
    if not waiting:
        raise UserError(f'all {len(plan.runs())} runs in {plan.work_dir} are done: use --report-only')
    commands, script = plan.work_dir / 'commands.sh', plan.work_dir / 'slurm.sh'
    write_commands(waiting, train_tool, commands)
    text = SLURM.format(
        name=plan.control,
        last=len(waiting) - 1,
        limit=f'%{jobs}' if jobs else '',
        path=script,
        cwd=shlex.quote(os.getcwd()),
        commands=shlex.quote(str(commands)),
    )
    AtomicLocalBackend().put(text.encode(), str(script))
    return script
