"""The results of a run: its logs, read into curves. No other file records its progress."""

import math
import re
from functools import lru_cache
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from mmengine.config import Config

from mmdyn.logs import METRICS, log_records, metric_of

CONFIG_NAME = 'config.py'
LOG_NAME = 'train.log'  # output of the process
MACHINE = 'machine: '  # begins a line of it
ROUTING = 'routing/'


class Run(NamedTuple):
    """The training of one config with one seed."""

    arm: str  # name of the config
    seed: int
    folder: Path

    @property
    def config(self) -> Path:
        """Path of the config that is run."""
        return self.folder.parent / CONFIG_NAME


class RunResult(NamedTuple):
    """The results of one run, read from its logs."""

    run: Run
    epochs: int  # planned
    ap: dict[int, float]  # AP of the task by epoch, or the accuracy of a classifier's best class
    ap50: dict[int, float]  # or that of the best five
    loss: dict[int, float]  # last value of every epoch
    routing: dict[str, dict[str, float]]  # figures of every dynamic layer at the last validation
    iteration: float  # median seconds of an iteration
    iterations: int
    attempts: int  # 1 plus the number of resumes
    error: str | None  # reason why it is not finished
    last: int = 1  # validations of which the score is the mean
    machines: tuple[str, ...] = ()  # kinds of CPU or GPU that it ran on

    @property
    def done(self) -> bool:
        """Whether it was validated at its last epoch, with a finite loss."""
        return self.error is None

    @property
    def diverged(self) -> bool:
        """Whether its loss is not finite; resuming such a run does not help."""
        return not all(map(math.isfinite, self.loss.values()))

    @property
    def final(self) -> float:
        """AP of the last epoch, or the mean over the last validations."""
        return mean(list(self.ap.values())[-self.last :])

    @property
    def best(self) -> float:
        """Best AP of any validation; it is optimistic, because it is chosen on the validation set."""
        return max(self.ap.values())

    @property
    def seconds(self) -> float:
        """Training time without validation: iterations times their median."""
        return self.iteration * self.iterations


def read_run(run: Run, last: int = 1) -> RunResult:
    """Read the logs of a run.

    Args:
        run: The run; its folder may be missing.
        last: Validations of which its score is the mean.
    """
    ap, ap50, loss, times, iterations = {}, {}, {}, [], 0
    routing: dict[str, dict[str, float]] = {}
    for record in log_records(run.folder):
        step = record.get('step', 0)
        if metric := metric_of(record):
            ap[step], ap50[step] = record[metric], record.get(METRICS[metric], math.nan)
        elif 'loss' in record:
            # epochs that a resumed run repeats replace the earlier records
            loss[record['epoch']], iterations = record['loss'], max(iterations, step)
            times.append(record['time'])
        else:
            for key, value in record.items():
                if key.startswith(ROUTING):
                    layer, _, name = key.removeprefix(ROUTING).rpartition('/')
                    routing.setdefault(layer, {})[name] = value
    epochs = _epochs(run.config, run.config.stat().st_mtime_ns)
    return RunResult(
        run=run,
        epochs=epochs,
        ap=dict(sorted(ap.items())),
        ap50=dict(sorted(ap50.items())),
        loss=loss,
        routing=routing,
        iteration=median(times) if times else math.nan,
        iterations=iterations,
        attempts=len(list(run.folder.glob('*/vis_data/scalars.json'))),
        error=_error(run.folder, epochs, ap, loss, last),
        last=last,
        machines=machines(run),
    )


@lru_cache(maxsize=64)
def _epochs(config: Path, _changed: int) -> int:
    """Epochs of a config, which all seeds of an arm share; read again when the file has changed."""
    return Config.fromfile(config).train_cfg.max_epochs


def machines(run: Run) -> tuple[str, ...]:
    """The kinds of CPU or GPU that a run says it ran on."""
    log = run.folder / LOG_NAME
    lines = log.read_text(errors='replace').splitlines() if log.is_file() else []
    return tuple(dict.fromkeys(line.removeprefix(MACHINE) for line in lines if line.startswith(MACHINE)))


def _error(folder: Path, epochs: int, ap: dict[int, float], loss: dict[int, float], last: int) -> str | None:
    broken = [epoch for epoch, value in loss.items() if not math.isfinite(value)]
    if broken:
        return f'the loss is {loss[broken[0]]} from epoch {broken[0]} on'
    if epochs in ap and len(ap) < last:
        return f'its logs have {len(ap)} validations, and the score is the mean of the last {last}'
    if epochs in ap:
        return None if ap[epochs] >= 0 else f'an AP of {ap[epochs]:g}: the validation set has no boxes'
    reached = max(loss, default=0)
    if not (folder / LOG_NAME).is_file() and not reached:
        return 'not started'
    return f'ended in epoch {reached} of {epochs}: {_last_words(folder / LOG_NAME)}'


def _last_words(log: Path) -> str:
    """The reason why a run ended, from the last line of its log."""
    if not log.is_file():
        return 'no log'
    with log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors='replace')
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(MACHINE)]
    if not lines:
        return 'nothing was printed'
    return 'it was stopped' if ' - INFO - ' in lines[-1] else lines[-1][:200]


def recorded_runs(work_dir: Path) -> list[Run]:
    """All runs in a folder, of this and earlier calls.

    Args:
        work_dir: Folder of a comparison.
    """
    found = ((folder, re.fullmatch(r'seed_(\d+)', folder.name)) for folder in sorted(work_dir.glob('*/seed_*')))
    return [
        Run(folder.parent.name, int(seed[1]), folder)
        for folder, seed in found
        if seed and (folder.parent / CONFIG_NAME).is_file()
    ]


def recorded_arms(work_dir: Path) -> dict[str, Config]:
    """The configs that a folder has, by name.

    Args:
        work_dir: Folder of a comparison; it may be empty.
    """
    return {path.parent.name: Config.fromfile(path) for path in sorted(work_dir.glob(f'*/{CONFIG_NAME}'))}
