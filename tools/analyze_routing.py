"""Draw the routing of a trained detector: weights by layer and by class, images that are routed most differently."""

import sys
from pathlib import Path

from _arguments import add_data_arguments, add_model_arguments, config_of, run_tool, settle_model, tool_parser

EXAMPLE = """  python tools/analyze_routing.py configs/yolo11n_dynconv_digits.py demo_output/work_dir/epoch_18.pth
  python tools/analyze_routing.py CONFIG CHECKPOINT --split train --images 1000 --out-dir routing"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='val', help='split of the data set (val)')
    parser.add_argument('--images', type=int, default=500, metavar='N', help='maximum number of images (500)')
    parser.add_argument(
        '--out-dir', type=Path, metavar='DIR', help='output folder (routing/ in the folder of the checkpoint)'
    )
    return parser


def analyze(args) -> None:
    from mmdyn.routing.analysis import analyse_routing, write_analysis

    settle_model(args)
    found = analyse_routing(config_of(args), args.checkpoint, args.split, args.images)
    folder = args.out_dir or Path(args.checkpoint).parent / 'routing'
    write_analysis(found, folder)
    print(f'{found.table()}\n')
    for name, layer in found.layers.items():
        if layer.collapsed:
            print(f'{name} has collapsed: {layer.collapsed}')
    print(f'Pictures: {folder}')


if __name__ == '__main__':
    sys.exit(run_tool(analyze, make_parser()))
