"""Browse a data set: images before and after augmentation, statistics of the labels, what the checks say; on one page.

The options of MMYOLO's browse_dataset.py (-m, --not-show, --show-interval, -p, -n) run that tool instead.
"""

import runpy
import sys
from pathlib import Path

from _arguments import add_config_arguments, add_data_arguments, config_of, run_tool, tool_parser

EXAMPLE = """  python tools/browse_dataset.py configs/yolo11n_dynconv_digits.py
  python tools/browse_dataset.py yolo11n_dynconv_coco --data my/data.yaml --split val --count 40
  python tools/browse_dataset.py configs/yolo11n_dynconv_digits.py -m pipeline --not-show --out-dir browse"""
OF_MMYOLO = ('-m', '--mode', '--not-show', '--show-interval', '-p', '--phase', '-n', '--show-number', '--host-help')


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_config_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='which images (train)')
    parser.add_argument('--count', type=int, default=12, metavar='N', help='images that are drawn (12)')
    parser.add_argument('--out-dir', type=Path, default=Path('browse'), help='where to write index.html (browse)')
    return parser


def browse(args) -> None:
    from mmdyn.analysis.browse import write_page

    page = write_page(config_of(args), args.split, args.out_dir, args.count)
    print(f'The page: {page}')


def browse_as_mmyolo() -> int:
    from mmdyn.running.messages import exit_code

    sys.argv[1:] = ['--help' if argument == '--host-help' else argument for argument in sys.argv[1:]]
    import mmyolo

    tool = Path(mmyolo.__file__).with_name('.mim') / 'tools' / 'analysis_tools' / 'browse_dataset.py'
    return exit_code(lambda: runpy.run_path(str(tool), run_name='__main__'))


if __name__ == '__main__':
    sys.exit(browse_as_mmyolo() if set(OF_MMYOLO) & set(sys.argv) else run_tool(browse, make_parser()))
