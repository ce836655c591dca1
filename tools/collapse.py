"""Turn a dynamic detector into a static one, with the mean routing weights over images of its training set.

Writes the checkpoint, its config and a report to the same folder, and prints the kernel error of every layer. With
--threshold only layers with a small error become static.
"""

import sys
from pathlib import Path

from _arguments import add_config_arguments, add_data_arguments, as_typed, config_of, run_tool, tool_parser

EXAMPLE = """  python tools/collapse.py configs/yolo11n_dynconv-bn_digits.py CHECKPOINT --out static.pth
  python tools/test.py static.py static.pth"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of the dynamic detector')
    parser.add_argument(
        '--out', required=True, metavar='FILE.pth', help='checkpoint to write, with FILE.py and FILE.md'
    )
    add_data_arguments(parser)
    parser.add_argument('--images', type=int, default=128, metavar='N', help='images of the training set (128)')
    parser.add_argument(
        '--threshold',
        type=float,
        metavar='ERROR',
        help='collapse only layers with at most this mean relative kernel error, for example 0.02 (all layers)',
    )
    parser.add_argument('--no-eval', action='store_true', help='skip AP before and after')
    return parser


def collapse(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.files import new_file, write_text
    from mmdyn.inference.evaluation import ap_table, evaluate
    from mmdyn.running.testing import task_of_config
    from mmdyn.surgery.collapse import collapse_checkpoint

    target = Path(args.out)
    if target.suffix != '.pth':
        raise UserError(f'--out must end in .pth, got {target}')
    report = new_file(target.with_suffix('.md'))
    if args.data and args.data.isdecimal() and not Path(args.data).exists():  # --images was called --data
        args.images, args.data = int(args.data), None
    cfg = config_of(args)
    done = collapse_checkpoint(cfg, args.checkpoint, target, args.images, args.threshold)
    count = sum(layer.collapsed for layer in done.layers)
    text = f'{count} of {len(done.layers)} layers are static now, with mean routing weights of {done.images} images\n\n'
    text += f'{done.table()}\n'
    if not args.no_eval:
        rows = {'before': evaluate(cfg, args.checkpoint), 'after': evaluate(done.cfg, str(target))}
        text += f'\n{ap_table(rows, task_of_config(cfg).name)}\n'
    write_text(report, text)
    print(f'\n{text}\n{target}, its config {target.with_suffix(".py")} and this report {report} are written')
    print(as_typed(f'test it: python tools/test.py {target.with_suffix(".py")} {target}'))


if __name__ == '__main__':
    sys.exit(run_tool(collapse, make_parser()))
