"""Export a model to every format, and compare the files: result, size, time, AP, largest difference to PyTorch.

Of a classifier AP is the accuracy of the best class.

A format is skipped where its packages are missing; name it by --formats to be told how to install them. Times are
medians for one image, all files in turn.
"""

import sys
from pathlib import Path

from _arguments import (
    EXPORTED,
    add_data_arguments,
    add_model_arguments,
    config_of,
    run_tool,
    settle_model,
    tool_parser,
)

EXAMPLE = """  python tools/benchmark.py configs/yolo11n_dynconv_digits.py CHECKPOINT
  python tools/benchmark.py --weights best.pth --data my/data.yaml --formats onnx openvino litert
  python tools/benchmark.py --weights best.pth --no-eval --all-forms
writes benchmark_output/benchmark.md, .json and the files"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument('--formats', nargs='+', choices=tuple(EXPORTED), help='formats (all that are installed)')
    parser.add_argument('--all-forms', action='store_true', help='every export form of dynamic convolutions')
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='images at a time (1)')
    parser.add_argument('--half', action='store_true', help='float16')
    parser.add_argument('--int8', action='store_true', help='quantise, where a format can')
    parser.add_argument('--calibration', type=int, default=128, metavar='N', help='images to calibrate with (128)')
    parser.add_argument('--no-eval', action='store_true', help='skip AP, and so the data set')
    parser.add_argument('--threads', type=int, metavar='N', help="threads (the runtimes' own choice)")
    parser.add_argument('--repeats', type=int, default=20, metavar='N', help='rounds of the timing (20)')
    parser.add_argument('--out-dir', type=Path, default=Path('benchmark_output'), help='output folder')
    return parser


def benchmark(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.export.benchmark import benchmark, table
    from mmdyn.export.options import ExportOptions
    from mmdyn.files import write_json, write_text

    if args.batch < 1 or args.repeats < 1:
        raise UserError(f'--batch and --repeats must be at least 1, got {args.batch} and {args.repeats}')
    settle_model(args)
    cfg = config_of(args)
    options = ExportOptions(batch=args.batch, half=args.half, int8=args.int8, calibration=args.calibration)
    rows = benchmark(
        cfg,
        args.checkpoint,
        args.out_dir,
        args.formats,
        args.all_forms,
        options,
        not args.no_eval,
        args.threads,
        args.repeats,
    )
    text = table(rows)
    write_text(args.out_dir / 'benchmark.md', f'{text}\n')
    write_json(args.out_dir / 'benchmark.json', [row.as_json() for row in rows], 2)
    print(f'\n{text}\n\nms of one image; boxes and scores: largest differences to PyTorch, in pixels and shares.')
    print(f'The table and the files are in {args.out_dir}.')


if __name__ == '__main__':
    sys.exit(run_tool(benchmark, make_parser()))
