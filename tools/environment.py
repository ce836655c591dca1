"""Print versions, devices and optional packages: for a bug report."""

import sys

from _arguments import run_tool, tool_parser

EXAMPLE = """  python tools/environment.py"""


def make_parser():
    return tool_parser(__doc__, EXAMPLE)


def show(args) -> None:
    from mmdyn.host.environment import report

    print(report())


if __name__ == '__main__':
    sys.exit(run_tool(show, make_parser()))
