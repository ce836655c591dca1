"""Code shared by the tools. It imports nothing heavy, so that ``--help`` answers at once."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'mmdyn').is_dir():  # a clone that is not installed
    sys.path.insert(0, str(ROOT))


def tool_parser(doc: str, example: str) -> argparse.ArgumentParser:
    """A parser that shows an example.

    Args:
        doc: Description of the tool.
        example: Example commands.
    """
    return argparse.ArgumentParser(
        description=doc, epilog=f'example:\n{example}', formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config and ``--cfg-options``."""
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override the config: a.b=1 c="[1,2]" d.0.e=x (no spaces within a value)',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config, the work dir and the launcher."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (work_dirs/NAME OF CONFIG)')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='job launcher')
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes it
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def options_of(args: argparse.Namespace) -> dict | None:
    """The values of ``--cfg-options``: dotted keys and values."""
    from mmengine.config import DictAction

    from mmdyn.errors import UserError

    pairs = args.cfg_options or []
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise UserError(f'--cfg-options takes KEY=VALUE, got {wrong[0]!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='*', action=DictAction)
    return parser.parse_args(pairs).options if pairs else None


def overrides(args: argparse.Namespace) -> str:
    """``--cfg-options`` as typed, after a space, for a suggested command."""
    return f' --cfg-options {shlex.join(args.cfg_options)}' if args.cfg_options else ''


def config_of(args: argparse.Namespace):
    """The config that the arguments of ``add_config_arguments`` or ``add_run_arguments`` describe."""
    from mmdyn.running.config_file import load_config

    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    return load_config(
        args.config, options_of(args), getattr(args, 'work_dir', None), getattr(args, 'launcher', 'none')
    )


def run_tool(command: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a tool's command; an error that a user can correct becomes one message and exit code 1."""
    from mmdyn.running.messages import exit_code

    return exit_code(lambda: command(args))
