"""Browse the images of the training pipeline: MMYOLO's tool, with the host packages prepared."""

import runpy
import sys
from pathlib import Path

from _arguments import tool_parser

EXAMPLE = """  python tools/browse_dataset.py configs/yolo11n_dynconv_digits.py -m pipeline --not-show --out-dir browse
all options: python tools/browse_dataset.py --host-help"""


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        parser = tool_parser(__doc__, EXAMPLE)
        parser.add_argument('config', help="config file, followed by the options of MMYOLO's browse_dataset.py")
        parser.parse_args()
    from mmdyn.running.messages import exit_code

    if sys.argv[1] == '--host-help':
        sys.argv[1] = '--help'
    import mmyolo

    tool = Path(mmyolo.__file__).with_name('.mim') / 'tools' / 'analysis_tools' / 'browse_dataset.py'
    return exit_code(lambda: runpy.run_path(str(tool), run_name='__main__'))


if __name__ == '__main__':
    sys.exit(main())
