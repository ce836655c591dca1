"""``python -m mmdyn.host``: the environment report, and the opt-in for stock entry points."""

import argparse
import sys

from mmdyn.errors import UserError

from .environment import report
from .optin import disable, enable

EXAMPLE = """
examples:
  python -m mmdyn.host            print the environment, for a bug report
  python -m mmdyn.host enable     mim, mmdet's own tools and DetInferencer work in this environment
  python -m mmdyn.host disable    undo that
"""


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        'python -m mmdyn.host',
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', nargs='?', choices=('report', 'enable', 'disable'), default='report')
    command = parser.parse_args().command
    try:
        if command == 'report':
            print(report())
        elif command == 'enable':
            print(f'wrote {enable()}: every Python of this environment now finds mmcv._ext')
        else:
            print(f'removed {disable()}')
    except UserError as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
