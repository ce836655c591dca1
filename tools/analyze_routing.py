"""Draw the routing of a trained detector: weights by layer and by class, images that are routed most differently."""

import sys
from pathlib import Path

from _arguments import add_data_arguments, add_model_arguments, config_of, run_tool, settle_model, tool_parser

EXAMPLE = """  python tools/analyze_routing.py configs/yolo11n_dynconv_digits.py demo_output/work_dir/epoch_18.pth
  python tools/analyze_routing.py CONFIG CHECKPOINT --split train --images 1000 --out-dir routing
  python tools/analyze_routing.py CONFIG CHECKPOINT --audit"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='val', help='split of the data set (val)')
    parser.add_argument('--images', type=int, default=500, metavar='N', help='maximum number of images (500)')
    parser.add_argument(
        '--out-dir', type=Path, metavar='DIR', help='output folder (routing/ in the folder of the checkpoint)'
    )
    parser.add_argument(
        '--audit',
        action='store_true',
        help='does routing read the validation images, and does the detector need it on the test set?',
    )
    parser.add_argument('--draws', type=int, default=3, metavar='N', help='tests with the routing of other images (3)')
    return parser


def analyze(args) -> None:
    settle_model(args)
    (audit if args.audit else draw)(args)


def draw(args) -> None:
    from mmdyn.routing.analysis import analyse_routing, write_analysis

    found = analyse_routing(config_of(args), args.checkpoint, args.split, args.images)
    folder = args.out_dir or Path(args.checkpoint).parent / 'routing'
    write_analysis(found, folder)
    print(f'{found.table()}\n')
    for name, layer in found.layers.items():
        if layer.collapsed:
            print(f'{name} has collapsed: {layer.collapsed}')
    print(f'Pictures: {folder}')


def audit(args) -> None:
    from mmdyn.files import write_json
    from mmdyn.routing.audit import audit_routing

    found = audit_routing(config_of(args), args.checkpoint, args.images, args.draws)
    path = (args.out_dir or Path(args.checkpoint).parent / 'routing') / 'audit.json'
    layers = {name: layer._asdict() for name, layer in found.layers.items()}
    write_json(path, dict(found._asdict(), layers=layers), indent=1)
    print(f'\nMoves are relative to the spread over images.\n\n{found.table()}\n\n{found.verdict()}\nNumbers: {path}')


if __name__ == '__main__':
    sys.exit(run_tool(analyze, make_parser()))
