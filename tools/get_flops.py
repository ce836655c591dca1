"""Count the parameters and the multiply-adds of a config's model, per-sample convolutions included."""

import sys

from _arguments import add_config_arguments, config_of, run_tool, tool_parser

EXAMPLE = """  python tools/get_flops.py configs/yolo11n_dynconv_coco.py
  python tools/get_flops.py configs/yolo11n_dynconv_coco.py --shape 320 320"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width in pixels, or one number for both (those of validation in the config, else 640)',
    )
    return parser


def show(args) -> None:
    from mmdyn.analysis.flops import count_cost
    from mmdyn.errors import UserError
    from mmdyn.models.build import build_model
    from mmdyn.running.image_size import image_size
    from mmdyn.running.messages import config_errors

    if args.shape and (min(args.shape) < 1 or len(args.shape) > 2):
        raise UserError(f'--shape takes one or two sizes of at least 1 pixel, got {args.shape}')
    cfg = config_of(args)
    height, width = (args.shape * 2)[:2] if args.shape else image_size(cfg)
    with config_errors():
        model = build_model(cfg)
    cost = count_cost(model, height, width)
    print(f'{args.config}, one image of {height} x {width}')
    print(f'parameters  {cost.parameters:,}')
    print(f'MACs        {cost.macs / 1e9:.3f} G')
    print(f'FLOPs       {cost.flops / 1e9:.3f} G  (two for every multiply-add of convolutions and matrix products)')
    for part, macs in cost.by_part.items():
        print(f'  {part:<10}{2 * macs / 1e9:.3f} G')


if __name__ == '__main__':
    sys.exit(run_tool(show, make_parser()))
