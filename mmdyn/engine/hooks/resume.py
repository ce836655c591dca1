"""Resuming a run: all processes use one checkpoint, iterations are recounted, and no validation is skipped."""

import re
import zipfile
from pathlib import Path

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmdyn.errors import UserError
from mmdyn.files import write_text
from mmdyn.logs import is_validation, log_records

VALIDATIONS = 'validations'  # file with the epochs or iterations whose validation was finished


def latest_checkpoint(work_dir: str | Path) -> str | Path | None:
    """The checkpoint that a work dir names as its last; if it names none, the last complete one.

    Args:
        work_dir: Folder of a run.
    """
    work_dir = Path(work_dir)
    note = work_dir / 'last_checkpoint'
    name = note.read_text().strip() if note.is_file() else ''
    if '://' in name:  # a remote folder, which MMEngine reads
        return name
    for named in (Path(name), work_dir / Path(name).name):  # the second if the folder was moved
        if name and named.is_file():
            return named
    numbers = {path: re.fullmatch(r'(?:epoch|iter)_(\d+)', path.stem) for path in work_dir.glob('*.pth')}
    whole = [(int(number[1]), path) for path, number in numbers.items() if number and zipfile.is_zipfile(path)]
    return max(whole)[1] if whole else None


def checkpoint_for_all(work_dir: str | Path) -> str | Path | None:
    """The checkpoint of :func:`latest_checkpoint` that the first process sees, for every process.

    Args:
        work_dir: Folder of the run.

    Raises:
        UserError: A process cannot read it.
    """
    chosen = [latest_checkpoint(work_dir) if is_main_process() else None]
    broadcast_object_list(chosen)
    if not isinstance(chosen[0], Path):
        return chosen[0]
    blind = [rank for rank, reads in enumerate(all_gather_object(chosen[0].is_file())) if not reads]
    if blind:
        raise UserError(
            f'processes {blind} cannot read {chosen[0].absolute()}, from which the first process resumes: '
            'set --work-dir to a folder that all machines share, or copy the checkpoint to each'
        )
    return chosen[0]


@HOOKS.register_module()
class ResumeHook(Hook):
    """Make a resumed run equal to one that was never stopped.

    Iterations are counted again from the epoch, as batch size and number of processes may have changed. A validation
    that was due at the checkpoint, but not finished, is run first.

    Raises:
        UserError: The processes resume at different iterations.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> config.default_hooks.resume  # in every config; train with --resume
        {'type': 'ResumeHook'}
    """

    priority = 'LOWEST'  # after the checkpoint hook has saved the best

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Convert the checkpoint's iteration to that of this run."""
        if runner._resume and isinstance(runner.train_loop, EpochBasedTrainLoop):
            meta = checkpoint['meta']
            meta['iter'] = meta['epoch'] * len(runner.train_dataloader)

    def before_train(self, runner: Runner) -> None:
        """Compare the processes, and validate where the interrupted run did not."""
        if not runner._resume:
            if is_main_process():
                Path(runner.work_dir, VALIDATIONS).unlink(missing_ok=True)  # of an earlier run in this folder
            return
        reached = all_gather_object((runner.epoch, runner.iter))
        if len(set(reached)) > 1:
            raise UserError(
                f'the processes resume at different epochs and iterations: {reached}. Give every process the same '
                'checkpoint: a --work-dir that all machines share'
            )
        missing = [_validation_is_missing(runner)]
        broadcast_object_list(missing)
        if missing[0]:
            print_log('The validation of the checkpoint was not finished: it is run now.', logger='current')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record that the validation was finished and its best checkpoint was written."""
        if is_main_process() and runner._train_loop is not None:
            note = Path(runner.work_dir, VALIDATIONS)
            write_text(note, f'{note.read_text() if note.is_file() else ""}{_reached(runner)}\n')


def _reached(runner: Runner) -> int:
    """Finished epochs, or iterations for an iteration-based loop."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _was_validated(runner: Runner) -> bool:
    """Whether the checkpoint was validated, with the result in a log."""
    note, checkpoint = Path(runner.work_dir, VALIDATIONS), Path(runner._load_from)
    if not note.is_file() or str(_reached(runner)) not in note.read_text().split():
        return False
    if checkpoint.is_file() and note.stat().st_mtime < checkpoint.stat().st_mtime:
        return False  # of an earlier run in this folder
    return any(is_validation(r) and r.get('step') == _reached(runner) for r in log_records(runner.work_dir))


def _validation_is_missing(runner: Runner) -> bool:
    """Whether a validation was due at the checkpoint, but not finished."""
    loop, reached = runner.train_loop, _reached(runner)
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    if runner.val_loop is None or reached == 0:
        return False
    loop._decide_current_val_interval()
    due = reached == last or (reached >= loop.val_begin and reached % loop.val_interval == 0)
    return due and not _was_validated(runner)
