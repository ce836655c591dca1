"""Resuming a run: all processes from one checkpoint, counted in today's iterations, no validation left out."""

import re
import zipfile
from pathlib import Path

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmdyn.errors import UserError
from mmdyn.logs import is_validation, log_records


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint that a work dir names as its last; where it names none, the last whole one.

    Args:
        work_dir: Folder of a run.
    """
    work_dir = Path(work_dir)
    note = work_dir / 'last_checkpoint'
    name = note.read_text().strip() if note.is_file() else ''
    for named in (Path(name), work_dir / Path(name).name):  # the second where the folder was moved
        if name and named.is_file():
            return named
    numbers = {path: re.fullmatch(r'(?:epoch|iter)_(\d+)', path.stem) for path in work_dir.glob('*.pth')}
    whole = [(int(number[1]), path) for path, number in numbers.items() if number and zipfile.is_zipfile(path)]
    return max(whole)[1] if whole else None


def checkpoint_for_all(work_dir: str | Path) -> Path | None:
    """The checkpoint of :func:`latest_checkpoint` that the first process sees, for every process.

    Args:
        work_dir: Folder of the run.

    Raises:
        UserError: Another process cannot read it.
    """
    chosen = [latest_checkpoint(work_dir) if is_main_process() else None]
    broadcast_object_list(chosen)
    if chosen[0] is None:
        return None
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
        >>> HOOKS.build(dict(type='ResumeHook')).priority
        'VERY_LOW'
    """

    priority = 'VERY_LOW'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn the checkpoint's iteration into that of this run."""
        if runner._resume and isinstance(runner.train_loop, EpochBasedTrainLoop):
            meta = checkpoint['meta']
            meta['iter'] = meta['epoch'] * len(runner.train_dataloader)

    def before_train(self, runner: Runner) -> None:
        """Compare the processes, and validate where the interrupted run did not."""
        if not runner._resume:
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


def _validation_is_missing(runner: Runner) -> bool:
    """Whether a validation is due where the run resumes, and its result is in no log."""
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    reached, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    if runner.val_loop is None or reached == 0:
        return False
    loop._decide_current_val_interval()
    if not (reached == last or (reached >= loop.val_begin and reached % loop.val_interval == 0)):
        return False
    return not any(is_validation(r) and r.get('step') == reached for r in log_records(runner.work_dir))
