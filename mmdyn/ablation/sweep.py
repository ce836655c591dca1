"""The sweep: trains every run of a plan in its own process with ``tools/train.py``.

A run is one call of ``tools/train.py CONFIG --resume``: an interrupted run continues, and a finished run is skipped. A
run that fails does not stop the others.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from mmdyn.errors import UserError
from mmdyn.logs import log_records, metric_of

from .commands import command_of
from .plan import Plan, record
from .runs import LOG_NAME, Run, read_run

POLL_S = 1.0
SHOW_S = 10.0  # interval between two reads of the logs, which can be long
PATIENCE_S = 10.0  # wait for processes that are ending
LOCK_NAME = '.lock'


@contextlib.contextmanager
def locked(folder: Path, patience: float = PATIENCE_S) -> Iterator[int]:
    """Lock a folder against other sweeps.

    Args:
        folder: Folder of a comparison or of a run; created if missing.
        patience: Seconds to wait for processes that are ending.

    Yields:
        File descriptor of the lock; a process that inherits it keeps the folder locked.

    Raises:
        UserError: Another sweep, or a run of a killed sweep, uses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    with (folder / LOCK_NAME).open('a+') as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() > until:
                    file.seek(0)
                    raise UserError(
                        f'another sweep, or a run that it started, uses {folder} ({file.read() or "Slurm"}). '
                        'Wait for it, stop it, or give another --work-dir'
                    ) from e
                time.sleep(0.2)
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        yield file.fileno()


def run_all(plan: Plan, train_tool: str | Path, jobs: int = 1) -> list[Run]:
    """Train all runs that are not done, with a progress bar.

    Args:
        plan: Configs and seeds.
        train_tool: Path of ``tools/train.py``.
        jobs: Number of parallel runs; they share the cores, or the GPUs.

    Returns:
        Runs that failed.

    Raises:
        UserError: Another sweep uses the folder.
    """
    with locked(plan.work_dir) as lock:
        record(plan)
        with Progress(plan) as progress, _ended_as_interrupted():
            failed: list[Run] = []
            left = [run for run in plan.runs() if not read_run(run).done]
            needed = {run.seed for run in left}
            starts = [run for run in plan.starts() if run.seed in needed and not plan.start_of(run.seed).is_file()]
            failed += _run_waiting(starts, train_tool, jobs, lock, progress)
            without = {run.seed for run in starts if not plan.start_of(run.seed).is_file()}
            for run in (run for run in left if run.seed in without):
                failed.append(run)
                progress.failed(run, f'{plan.start_of(run.seed)}, which it starts from, is not there')
            results = [read_run(run) for run in left if run.seed not in without]
            diverged = [r for r in results if r.diverged]
            for result in diverged:
                progress.failed(result.run, f'{result.error}; remove its folder to train it again')
            waiting = [r.run for r in results if not r.diverged]
            failed += [r.run for r in diverged] + _run_waiting(waiting, train_tool, jobs, lock, progress)
            return failed


def _run_waiting(waiting: list[Run], train_tool: str | Path, jobs: int, lock: int, progress: 'Progress') -> list[Run]:
    failed: list[Run] = []
    running: dict[int, tuple[Run, subprocess.Popen]] = {}

    def fail(run: Run, why: str) -> None:
        failed.append(run)
        progress.failed(run, why)

    try:
        while waiting or running:
            for slot in set(range(jobs)) - set(running):
                if waiting:
                    run = waiting.pop(0)
                    try:
                        running[slot] = run, _start(run, train_tool, _share(slot, jobs), lock)
                    except UserError as e:
                        fail(run, str(e))
            time.sleep(POLL_S)
            progress.show([run for run, _ in running.values()])
            for slot, (run, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    error = _end(run, process.returncode)
                    progress.read(run)
                    if error is not None:
                        fail(run, f'{error} ({run.folder / LOG_NAME})')
        return failed
    finally:
        for _, process in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # with its data loaders
        for _, process in running.values():
            process.wait()


def _end(run: Run, status: int) -> str | None:
    """The reason why an ended run is not done. If a signal ended the run, the signal is added to its log."""
    if status < 0:
        with (run.folder / LOG_NAME).open('a') as log:
            log.write(f'ended by {signal.Signals(-status).name}\n')
    return read_run(run).error


def _start(run: Run, train_tool: str | Path, environment: dict[str, str], lock: int) -> subprocess.Popen:
    with locked(run.folder) as own, (run.folder / LOG_NAME).open('a') as log:
        return subprocess.Popen(
            command_of(run, train_tool),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            pass_fds=[lock, own],
            start_new_session=True,
        )


def _share(slot: int, jobs: int) -> dict[str, str]:
    """Environment of a run that shares the machine."""
    if jobs == 1:
        return {}
    if torch.cuda.device_count():
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        gpus = visible.split(',') if visible else [str(i) for i in range(torch.cuda.device_count())]
        return {'CUDA_VISIBLE_DEVICES': gpus[slot % len(gpus)]}
    if 'OMP_NUM_THREADS' in os.environ:
        return {}
    return {'OMP_NUM_THREADS': str(max(1, len(os.sched_getaffinity(0)) // jobs))}


@contextlib.contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C, so that the sweep ends its runs too; `nohup` is respected."""

    def interrupt(*_):
        raise KeyboardInterrupt

    signals = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, interrupt) for s in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A bar over the epochs of all runs.

    Args:
        plan: Configs and seeds.
    """

    def __init__(self, plan: Plan) -> None:
        self.epochs = dict.fromkeys(plan.starts(), plan.declaration.start_epochs)
        self.epochs |= dict.fromkeys(plan.runs(), plan.epochs)
        self.reached = {run: _epoch(run, epochs) for run, epochs in self.epochs.items()}
        self.due = 0.0  # time of the next read
        self.bar = tqdm(total=sum(self.epochs.values()), initial=sum(self.reached.values()), unit='epoch')

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def show(self, running: list[Run]) -> None:
        """Update the bar, at most once per interval.

        Args:
            running: Runs that may have progressed.
        """
        if time.monotonic() >= self.due:
            self.bar.set_description(', '.join(f'{run.arm} seed {run.seed}' for run in running), refresh=False)
            for run in running:
                self.read(run)
            self.due = time.monotonic() + SHOW_S

    def read(self, run: Run) -> None:
        """Read the progress of a run.

        Args:
            run: The run to read.
        """
        self.reached[run] = max(_epoch(run, self.epochs[run]), self.reached[run])
        self.bar.update(sum(self.reached.values()) - self.bar.n)
        self.due = 0.0

    def failed(self, run: Run, why: str) -> None:
        """Report above the bar that a run failed.

        Args:
            run: The run that failed.
            why: The reason.
        """
        self.bar.write(f'{run.arm}, seed {run.seed} failed: {why}')


def _epoch(run: Run, epochs: int) -> int:
    """Last epoch that a run has finished."""
    steps = [r['step'] if metric_of(r) else r.get('epoch', 1) - 1 for r in log_records(run.folder) if 'step' in r]
    return min(max(steps, default=0), epochs)
