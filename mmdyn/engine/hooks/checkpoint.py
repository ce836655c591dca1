"""Atomic checkpoints: written to a temporary file and moved, and the old one is removed last.

MMEngine removes the oldest checkpoint before it writes the next one, and does not write atomically.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdyn.files import remove_partial_files, replacing, write_bytes

from .average_buffers import average_buffers

LAST_CHECKPOINT = 'last_checkpoint'


class AtomicLocalBackend(LocalBackend):
    """``LocalBackend`` that writes atomically."""

    def put(self, obj: bytes, filepath: str) -> None:
        """Write ``obj`` to ``filepath`` atomically."""
        with replacing(filepath) as partial:
            super().put(obj, str(partial))


register_backend('atomic_local', AtomicLocalBackend)


@contextmanager
def _note_written_whole(runner: Runner) -> Iterator[None]:
    """Make MMEngine write the name of the last checkpoint to the work dir atomically."""
    if not is_main_process():
        yield
        return
    note = Path(runner.work_dir, LAST_CHECKPOINT)
    with tempfile.TemporaryDirectory(prefix='.saving-', dir=note.parent) as folder:
        runner._work_dir = folder
        try:
            yield
        finally:
            runner._work_dir = str(note.parent)
        write_bytes(note, Path(folder, LAST_CHECKPOINT).read_bytes())


class _RemovesLater(AtomicLocalBackend):
    """Collects files to remove later."""

    def __init__(self) -> None:
        self.condemned: list[str] = []

    def remove(self, filepath: str) -> None:
        """Note the file for later."""
        self.condemned.append(filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that keeps the previous checkpoint if it cannot write the next, for example on a full disk.

    Arguments are those of ``CheckpointHook``; remote folders (``backend_args``) work as they do there.

    Example:
        >>> HOOKS.build(dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3)).local
        True
    """

    file_backend: LocalBackend

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        self.local = backend_args is None
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic_local'), **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Set the folder of the checkpoints, and remove partial files of killed processes."""
        super().before_train(runner)
        if self.local and is_main_process():
            remove_partial_files(self.out_dir)

    def _save_checkpoint(self, runner: Runner) -> None:
        average_buffers(runner)
        super()._save_checkpoint(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._old_ones_kept(), _note_written_whole(runner):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._old_ones_kept():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _old_ones_kept(self) -> Iterator[None]:
        """Remove old checkpoints after the block succeeds."""
        if not self.local or isinstance(self.file_backend, _RemovesLater):
            yield
            return
        before, self.file_backend = self.file_backend, _RemovesLater()
        condemned = self.file_backend.condemned
        try:
            yield
        finally:
            self.file_backend = before
        written = {self.last_ckpt, getattr(self, 'best_ckpt_path', None)}
        written |= set(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in condemned:
            if path not in written:  # the best of an epoch that is validated again has the same name
                before.remove(path)
