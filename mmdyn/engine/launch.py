"""Launch: from a config to a runner, and from an error to a message.

The tools parse, call one function here, and print.
"""

import difflib
import errno
import os
import pickle
import re
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import Registry, root
from mmengine.runner import Runner
from mmyolo.registry import RUNNERS

from mmdyn.errors import UserError
from mmdyn.host import keep_freed_memory

from .processes import join_processes

DEBUG = 'MMDYN_DEBUG'
# Default hooks that MMEngine itself leaves out where a config has None for them; of others it wants none at all.
MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
# Optimizer wrapper -> the one with mixed precision on a GPU, and on a CPU.
AMP_WRAPPERS = {
    'OptimWrapper': ('AmpOptimWrapper', 'CPUAmpOptimWrapper'),
    'YOLOOptimWrapper': ('YOLOAmpOptimWrapper', 'YOLOCPUAmpOptimWrapper'),
}


def exit_code(command: Callable[[], None]) -> int:
    """Run a command; print what a user can mend as one message instead of a traceback.

    Args:
        command: What to run.

    Returns:
        0, or 1 after an error that was printed. ``MMDYN_DEBUG=1`` in the environment adds the traceback.
    """
    try:
        command()
    except UserError as e:
        _print_error(str(e))
        return 1
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            _print_error(
                f'the disk is full, writing {e.filename or "a file of the run"}. '
                'The checkpoints written before are whole: free space and continue with --resume'
            )
        elif isinstance(e, FileNotFoundError) and e.filename:
            _print_error(f'there is no {Path(os.fsdecode(e.filename)).absolute()} (who asks for it: {DEBUG}=1)')
        else:
            _print_error(f'{e} (the traceback: {DEBUG}=1)')
        return 1
    return 0


def _print_error(message: str) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    # names from untrusted files must not steer the terminal
    shown = ''.join(c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in message)
    print(f'error: {shown}', file=sys.stderr)


def enable_amp(cfg: Config) -> None:
    """Train with mixed precision: fp16 on a GPU, bf16 on a CPU that has it.

    Args:
        cfg: Config, changed in place.

    Raises:
        UserError: The config's optimizer wrapper is of another kind.
    """
    current = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if any(current in pair for pair in AMP_WRAPPERS.values()):
        return
    if current not in AMP_WRAPPERS:
        raise UserError(f'--amp replaces {" or ".join(AMP_WRAPPERS)}, but optim_wrapper.type is {current}')
    on_gpu, on_cpu = AMP_WRAPPERS[current]
    cfg.optim_wrapper.type = on_gpu if torch.cuda.is_available() else on_cpu


def build_runner(cfg: Config, *, train: bool) -> Runner:
    """Build the runner that a config describes, and the parts that MMEngine would only build on the way.

    Args:
        cfg: Config.
        train: Build what trains and validates; otherwise what tests.

    Raises:
        UserError: A type is unknown, with the near names; or an argument does not suit its type.
    """
    join_processes(cfg)
    if not torch.cuda.is_available():
        if train and cfg.get('keep_freed_memory', False):
            keep_freed_memory()
        if cfg.launcher != 'none':
            _distribute_over_cpus(cfg)
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in MMENGINE_HOOKS]:
        del hooks[name]
    # a config of another package: never test a checkpoint that only half fits, never resume out of step
    guards = dict(checkpoint_guard='CheckpointGuardHook', resume='ResumeHook')
    missing = [dict(type=guard) for name, guard in guards.items() if name not in hooks]
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *missing]
    if train and cfg.get('compile'):
        options = cfg.compile if isinstance(cfg.compile, dict) else {}
        cfg.custom_hooks.append(dict(type='CompileHook', **options))
        cfg.compile = False
    for loader in (cfg.get('val_dataloader'), cfg.get('test_dataloader')):
        shapes = loader and loader.dataset.get('batch_shapes_cfg')
        if shapes and shapes.type == 'BatchShapePolicy':
            shapes.batch_size = loader.batch_size  # stated once, with the loader
    with config_errors():
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if train:
            _ = runner.train_loop, runner.val_loop
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        else:
            _ = runner.test_loop
    return runner


def _distribute_over_cpus(cfg: Config) -> None:
    """MMEngine's wrapper of a model, and synchronised batch norm, ask for a GPU."""
    if cfg.model.get('type') == 'YOLODetector':
        cfg.model.use_syncbn = False
    cfg.setdefault(
        'model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    )


@contextmanager
def config_errors() -> Iterator[None]:
    """Turn what a constructor says of a config's values into a message."""
    try:
        yield
    except KeyError as e:
        unknown = re.match(r'(\S+) is not in the \S*?(?:::)?([\w ]+) registry', str(e.args[0]) if e.args else '')
        if unknown is None:
            raise UserError(f'the config lacks {e}') from e
        raise UserError(_unknown_type(*unknown.groups())) from e
    except (TypeError, ValueError, AssertionError) as e:
        raise UserError(f'the config does not build: {e} (the traceback: {DEBUG}=1)') from e


def _unknown_type(name: str, registry: str) -> str:
    names = _names(registry)
    if name in names:
        return (
            f"the scope of the config has no {registry} of type '{name}': give default_scope='mmyolo', or its package"
        )
    near = difflib.get_close_matches(name.split('.')[-1], sorted(names), n=3, cutoff=0.5)
    hint = f'Did you mean {" or ".join(near)}?' if near else 'Is the package that has it in custom_imports?'
    return f"there is no {registry} of type '{name}'. {hint}"


def _names(kind: str) -> set[str]:
    """Names that a kind of registry holds in any scope."""

    def below(registry: Registry) -> set[str]:
        return set(registry.module_dict).union(*(below(child) for child in registry.children.values()))

    registries = [r for r in vars(root).values() if isinstance(r, Registry) and r.name == kind]
    return set().union(*(below(r) for r in registries))


def check_checkpoint(path: str) -> dict | None:
    """See that a file is a checkpoint that loads safely, before a run is built around it.

    Args:
        path: Local path, or a URL, which is left to MMEngine.

    Returns:
        Its content without the data of its tensors; None for a URL.

    Raises:
        UserError: No such file, or it is not a checkpoint, or it holds objects that the safe loader refuses.
    """
    if '://' in path:
        return None
    if not Path(path).is_file():
        raise UserError(f'no checkpoint at {Path(path).absolute()}')
    try:
        content = torch.load(path, map_location='meta', weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as e:
        readable = zipfile.is_zipfile(path) or isinstance(e, pickle.UnpicklingError)
        reason = str(e).splitlines()[0] if readable else 'it is no archive of torch.save, or its end is missing'
        raise UserError(f'{path} is not a checkpoint that loads safely: {reason}') from e
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}, not a checkpoint')
    return content
