"""Checkpoints that are whole or not there, and that fit the model or stop the run.

MMEngine removes the oldest checkpoint before it writes the next one, writes in place, and loads with
``strict=False``. Here a checkpoint is written under another name and moved, the old one goes last, and what does not
fit is an error.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdyn.errors import UserError
from mmdyn.files import new_file, remove_partial_files, replacing, write_bytes

from .buffers import average_buffers

LAST_CHECKPOINT = 'last_checkpoint'
SHOWN = 4
SHOWN_LAYERS = 24


class AtomicLocalBackend(LocalBackend):
    """``LocalBackend`` that writes a file beside its place and moves it there when it is whole."""

    def put(self, obj: bytes, filepath: str) -> None:
        """Write ``obj`` to ``filepath``, all or nothing."""
        with replacing(filepath) as partial:
            super().put(obj, str(partial))


register_backend('atomic_local', AtomicLocalBackend)


def write_checkpoint(content: dict, target: str | Path) -> None:
    """Write a new file as ``torch.save`` does, all or nothing.

    Raises:
        UserError: ``target`` exists.
    """
    with replacing(new_file(target)) as partial:
        torch.save(content, partial)


def state_dict_of(content: dict, source: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without the prefix that a parallel model puts before each.

    Raises:
        UserError: There are none.
    """
    tensors = content.get('state_dict', content)
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise UserError(f'{source} holds no state dict of tensors by name')
    parallel = all(k.startswith('module.') for k in tensors)
    return {k.removeprefix('module.'): v for k, v in tensors.items()} if parallel else tensors


def classes_of(content: dict) -> tuple[str, ...] | None:
    """Names of the classes that a checkpoint was trained on, where it has them."""
    meta = content.get('meta')
    dataset_meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    names = dataset_meta.get('classes') if isinstance(dataset_meta, dict) else None
    return tuple(map(str, names)) if isinstance(names, list | tuple) else None


@contextmanager
def _note_written_whole(runner: Runner) -> Iterator[None]:
    """MMEngine writes the name of the last checkpoint into the work dir, in place: let it write beside, and move it."""
    if not is_main_process():
        yield
        return
    note = Path(runner.work_dir, LAST_CHECKPOINT)
    with tempfile.TemporaryDirectory() as folder:
        runner._work_dir = folder
        try:
            yield
        finally:
            runner._work_dir = str(note.parent)
        write_bytes(note, Path(folder, LAST_CHECKPOINT).read_bytes())


class _RemovesLater(AtomicLocalBackend):
    """Keeps a list of what it should remove."""

    def __init__(self) -> None:
        self.condemned: list[str] = []

    def remove(self, filepath: str) -> None:
        """Note the file for later."""
        self.condemned.append(filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """``CheckpointHook`` whose previous checkpoint outlives a failure to write the next, a full disk for example.

    Arguments are those of ``CheckpointHook``; remote folders (``backend_args``) work as they do there.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        self.local = backend_args is None
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic_local'), **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Find the folder of the checkpoints, and remove what a killed process left half-written in it."""
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
        """Remove old checkpoints when the block has ended well."""
        if not self.local or isinstance(self.file_backend, _RemovesLater):
            yield
            return
        before, self.file_backend = self.file_backend, _RemovesLater()
        condemned = self.file_backend.condemned
        try:
            yield
        finally:
            self.file_backend = before
        for path in condemned:
            before.remove(path)


def differences(expected: dict, found: dict) -> list[str]:
    """How a checkpoint's state dict differs from a model's.

    Args:
        expected: State dict of the model.
        found: State dict of the checkpoint.

    Returns:
        One line for every missing key, unexpected key and other shape, in the order of the model.
    """
    counters = 'num_batches_tracked'
    missing = [f'missing {k} {tuple(v.shape)}' for k, v in expected.items() if k not in found and counters not in k]
    shapes = [
        f'{k} is {tuple(found[k].shape)}, the model has {tuple(v.shape)}'
        for k, v in expected.items()
        if k in found and found[k].shape != v.shape
    ]
    unexpected = [f'unexpected {k} {tuple(v.shape)}' for k, v in found.items() if k not in expected]
    return missing + shapes + unexpected


def refuse_other_architecture(model: nn.Module, checkpoint: dict, name: str, partly: bool = False) -> None:
    """Compare a checkpoint with a model.

    Args:
        model: The model.
        checkpoint: Content of the checkpoint.
        name: What to call it in the message.
        partly: A quarter of the tensors is enough, as for fine-tuning.

    Raises:
        UserError: It does not fit; with the first keys that differ.
    """
    expected = (model.module if isinstance(model, BaseTTAModel) else model).state_dict()
    found = _tensors(checkpoint)
    differing = differences(expected, found)
    fits = sum(k in expected and expected[k].shape == v.shape and v.dim() > 0 for k, v in found.items())
    enough = fits > len(expected) / 4  # another scale or another detector shares a handful of shapes by chance
    if differing and not (partly and enough):
        raise UserError(
            f'{name} is of another architecture than the config: {len(differing)} differences, '
            f'first {"; ".join(differing[:SHOWN])}. Give the config it was trained with'
        )


def _tensors(checkpoint: dict) -> dict:
    found = checkpoint.get('state_dict', checkpoint)
    return {k.removeprefix('module.'): v for k, v in found.items() if hasattr(v, 'shape')}


def _what_is_taken(expected: dict, checkpoint: dict, name: str) -> str:
    """What of a model comes from a checkpoint, and which layers start anew."""
    found = _tensors(checkpoint)
    anew = [k for k, v in expected.items() if k not in found or found[k].shape != v.shape]
    message = f'{name}: {len(expected) - len(anew)} of {len(expected)} tensors taken'
    if not anew:
        return message
    layers = list(dict.fromkeys(k.rpartition('.')[0] for k in anew))
    more = f' and {len(layers) - SHOWN_LAYERS} more' if len(layers) > SHOWN_LAYERS else ''
    why = ''
    if all('.cls_preds.' in layer for layer in layers):
        why = ' (of the class branch only, as the number of classes is another)'
    return f'{message}; newly initialised{why}: {", ".join(layers[:SHOWN_LAYERS])}{more}'


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Refuse a checkpoint that does not fit.

    Testing and resuming need every tensor, fine-tuning (``load_from``) a quarter of them.

    Raises:
        UserError: With the first keys that differ.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare before anything is loaded; a bare state dict becomes a checkpoint for the hooks after this one."""
        if 'state_dict' not in checkpoint:
            checkpoint['state_dict'] = {k: v for k, v in checkpoint.items() if hasattr(v, 'shape')}
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        fine_tuning = isinstance(runner.optim_wrapper, OptimWrapper | OptimWrapperDict) and not runner._resume
        refuse_other_architecture(model, checkpoint, runner._load_from or 'the checkpoint', partly=fine_tuning)
        if fine_tuning:
            print_log(_what_is_taken(model.state_dict(), checkpoint, runner._load_from), logger='current')
