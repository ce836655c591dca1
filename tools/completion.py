"""Print the completion of mmdyn for a shell, names of configs included."""

import argparse
import runpy

import _arguments
from _arguments import COMMANDS, ROOT, tool_parser

EXAMPLE = """  python tools/completion.py bash > ~/.local/share/bash-completion/completions/mmdyn
  python tools/completion.py zsh > ~/.zfunc/_mmdyn"""
PREAMBLE = """_mmdyn_configs() {{ compgen -W '{names}' -- "$1"; compgen -f -- "$1"; }}"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('shell', choices=('bash', 'zsh', 'tcsh'), help='the shell')
    return parser


def show(args) -> None:
    import shtab

    root = argparse.ArgumentParser('mmdyn')
    commands = root.add_subparsers()
    for name, command in COMMANDS.items():
        _arguments.typed = name
        parser = runpy.run_path(str(ROOT / command.file))['make_parser']()
        for action in parser._actions:
            if action.dest in ('config', 'configs'):
                action.complete = {'bash': '_mmdyn_configs', 'zsh': '_files', 'tcsh': 'f'}
            elif action.dest in ('checkpoint', 'data', 'inputs', 'model', 'out', 'work_dir'):
                action.complete = shtab.FILE
        commands.add_parser(name, parents=[parser], add_help=False, help=command.purpose)
    names = ' '.join(sorted(path.stem for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts))
    print(shtab.complete(root, args.shell, preamble={'bash': PREAMBLE.format(names=names)}))


if __name__ == '__main__':
    show(make_parser().parse_args())
