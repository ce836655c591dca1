"""Resuming: which checkpoint, for all processes the same, counted in today's batch, no validation left out."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS

from conftest import ROOT
from mmdyn.engine.hooks.resume import latest_checkpoint
from mmdyn.logs import is_validation, log_records
from small_training import Line, loader, runner_for

CHECKPOINT = dict(type='AtomicCheckpointHook', interval=1)


def checkpoints(folder: Path, *names: str) -> None:
    for name in names:
        torch.save({}, folder / name)


def test_the_named_checkpoint_counts_also_where_the_folder_was_moved(tmp_path):
    checkpoints(tmp_path, 'epoch_1.pth', 'epoch_2.pth')
    note = tmp_path / 'last_checkpoint'
    note.write_text(str(tmp_path / 'epoch_1.pth'))
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    note.write_text('/gone/work_dirs/epoch_1.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'


@pytest.mark.parametrize('note', [None, '', 'epoch_99.pth'], ids=['no note', 'empty note', 'note of a missing file'])
def test_without_a_name_the_last_whole_checkpoint_counts(tmp_path, note):
    assert latest_checkpoint(tmp_path) is None
    checkpoints(tmp_path, 'epoch_2.pth', 'epoch_10.pth', 'best_coco_epoch_12.pth')
    (tmp_path / 'epoch_11.pth').write_bytes(b'cut')
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note)
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_10.pth'


def test_the_name_of_the_last_checkpoint_is_never_seen_half_written(tmp_path, monkeypatch):
    """Whatever is opened for writing, the note in the work dir is a whole one at all times."""
    import builtins

    opened, seen = builtins.open, []

    def watch(path, mode='r', *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        if 'w' in mode and Path(tmp_path, 'last_checkpoint').exists():
            with opened(tmp_path / 'last_checkpoint') as note:
                seen.append(note.read())
        return file

    monkeypatch.setattr(builtins, 'open', watch)
    runner_for(tmp_path, epochs=3, default_hooks=dict(param_scheduler=None, checkpoint=CHECKPOINT)).train()
    monkeypatch.undo()
    assert len(seen) > 3
    assert {Path(name).name for name in seen} <= {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}


@METRICS.register_module()
class Constant(BaseMetric):
    """A metric that counts how often it was asked."""

    asked, score = 0, 0.5

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Constant.asked += 1
        return {'score': Constant.score}


class StopsInValidation(Hook):
    """Ends the process, as it were, in the middle of the validation of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_val_epoch(self, runner):
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


def validated(tmp_path, *, resume=None, hooks=(), **kwargs):
    """A run of four epochs that validates every second one."""
    options = dict(
        epochs=4,
        hooks=[*hooks, dict(type='ResumeHook')],
        default_hooks=dict(param_scheduler=None, checkpoint=CHECKPOINT),
        val_dataloader=loader(8, 4),
        val_cfg=dict(),
        val_evaluator=dict(type='Constant'),
        train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=2),
    )
    options |= dict(resume=True, load_from=str(resume)) if resume else {}
    time.sleep(1.1)  # MMEngine names the folder of a run by the second
    return runner_for(tmp_path, **{**options, **kwargs})


def validations(tmp_path) -> list[int]:
    return [r['step'] for r in log_records(tmp_path) if is_validation(r)]


@pytest.mark.parametrize('epoch', [2, 4])
def test_a_validation_that_was_killed_is_run_again(tmp_path, epoch):
    with pytest.raises(KeyboardInterrupt):
        validated(tmp_path, hooks=[StopsInValidation(epoch)]).train()
    assert validations(tmp_path) == [2][: epoch // 2 - 1]
    validated(tmp_path, resume=latest_checkpoint(tmp_path)).train()
    assert validations(tmp_path) == [2, 4]


def test_a_validation_of_an_earlier_run_in_the_folder_does_not_count(tmp_path):
    validated(tmp_path).train()
    with pytest.raises(KeyboardInterrupt):
        validated(tmp_path, hooks=[StopsInValidation(4)]).train()  # begins again, without --resume
    Constant.asked = 0
    validated(tmp_path, resume=latest_checkpoint(tmp_path)).train()
    assert Constant.asked == 1


def test_the_best_checkpoint_survives_a_better_score_of_the_same_epoch(tmp_path):
    """The logs are gone, so the last epoch is validated again, and its best checkpoint has the name that it had."""
    best = dict(param_scheduler=None, checkpoint=dict(CHECKPOINT, save_best='score', rule='greater'))
    validated(tmp_path, default_hooks=best).train()
    assert (tmp_path / 'best_score_epoch_2.pth').is_file()
    (tmp_path / 'validations').unlink()
    Constant.score, before = 0.9, Constant.score
    try:
        validated(tmp_path, default_hooks=best, resume=tmp_path / 'epoch_2.pth').train()
    finally:
        Constant.score = before
    assert (tmp_path / 'best_score_epoch_2.pth').is_file()


def test_a_remote_checkpoint_is_left_to_mmengine(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/run/epoch_3.pth')
    assert latest_checkpoint(tmp_path) == 's3://bucket/run/epoch_3.pth'


def test_a_validation_that_was_finished_is_not_run_again(tmp_path):
    validated(tmp_path).train()
    Constant.asked = 0
    for name in ('epoch_2.pth', 'epoch_4.pth'):
        validated(tmp_path, resume=tmp_path / name).train()
    assert Constant.asked == 1  # of epoch 4, after epoch 2 was resumed


@pytest.mark.parametrize(('before', 'after'), [(4, 8), (8, 4)])
def test_resume_with_another_batch_counts_in_its_iterations(tmp_path, before, after):
    """Stopped after two of four epochs; the rest has the rates and the end that the new batch gives it."""
    validated(tmp_path, batch_size=before, train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=2)).train()
    runner = validated(tmp_path, resume=tmp_path / 'epoch_2.pth', batch_size=after)
    seen = []

    class Watch(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append(runner.iter)

    runner.register_hook(Watch())
    runner.train()
    per_epoch = 32 // after
    assert seen == list(range(2 * per_epoch, 4 * per_epoch))
    assert runner.iter == runner.max_iters
    assert validations(tmp_path) == [2, 4]


WORKER = """
import sys
from pathlib import Path
import mmdyn
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank
from mmdyn.running.processes import join_processes
from mmdyn.engine.hooks.resume import checkpoint_for_all
from mmdyn.errors import UserError

join_processes(Config(dict(launcher=sys.argv[1])))
folders = sys.argv[2:]
try:
    chosen = checkpoint_for_all(folders[get_rank() % len(folders)])
except UserError as e:
    chosen = e
print(get_rank(), all_gather_object(get_rank()), chosen, flush=True)
"""


def start(launcher: str, port: int, *folders: Path) -> list[str]:
    """Two processes with the environment that a launcher gives them; what each printed."""
    import subprocess

    processes = []
    for rank in ('0', '1'):
        environment = {
            'slurm': dict(SLURM_PROCID=rank, SLURM_NTASKS='2', SLURM_LOCALID=rank, SLURM_NNODES='1'),
            'mpi': dict(
                OMPI_COMM_WORLD_RANK=rank,
                OMPI_COMM_WORLD_SIZE='2',
                OMPI_COMM_WORLD_LOCAL_RANK=rank,
                OMPI_COMM_WORLD_LOCAL_SIZE='2',
            ),
        }[launcher]
        command = [sys.executable, '-c', WORKER, launcher, *map(str, folders)]
        env = {**os.environ, **environment, 'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1'}
        processes.append(
            subprocess.Popen(command, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    return [out.strip().splitlines()[-1] for out, _ in ended]


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(('launcher', 'port'), [('slurm', 29642), ('mpi', 29643)])
def test_every_process_resumes_what_the_first_one_sees(tmp_path, launcher, port):
    """The second process sees an older checkpoint in a folder of its own, and does not resume that."""
    for name, numbers in (('first', (1, 2)), ('second', (1,))):
        (tmp_path / name).mkdir()
        checkpoints(tmp_path / name, *(f'epoch_{n}.pth' for n in numbers))
    chosen = tmp_path / 'first/epoch_2.pth'
    assert start(launcher, port, tmp_path / 'first', tmp_path / 'second') == [f'{r} [0, 1] {chosen}' for r in (0, 1)]


def test_processes_that_resume_elsewhere_are_refused(tmp_path, monkeypatch):
    from mmdyn.engine.hooks import resume
    from mmdyn.errors import UserError

    validated(tmp_path, epochs=2).train()
    monkeypatch.setattr(resume, 'all_gather_object', lambda own: [own, (1, 8)])
    with pytest.raises(UserError, match=r'different epochs and iterations: \[\(2, 16\), \(1, 8\)\]'):
        validated(tmp_path, resume=tmp_path / 'epoch_2.pth').train()


def test_line_is_the_model_of_these_runs():
    assert sum(p.numel() for p in Line().parameters()) == 3 + 1 + 18 + 2
