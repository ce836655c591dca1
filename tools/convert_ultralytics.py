"""Convert a YOLO11 checkpoint of the Ultralytics package to one of this project, or back.

Scale, classes and variant (static, DynamicConv, C3k2_DynamicConv) are detected. The Ultralytics package is not needed,
and nothing in the file is run.
"""

import sys

from _arguments import run_tool, tool_parser

EXAMPLE = """  python tools/convert_ultralytics.py yolo11n.pt yolo11n.pth
  python tools/test.py configs/yolo11n_coco.py yolo11n.pth
  python tools/convert_ultralytics.py --reverse work_dirs/mine/epoch_100.pth back.pt"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('src', help='.pt of the Ultralytics package, plain state dict, or .safetensors')
    parser.add_argument('dst', help='checkpoint to write; must not exist')
    parser.add_argument('--reverse', action='store_true', help='from this project to a state dict of the original')
    parser.add_argument('--scale', choices=tuple('nsmlx'), help='expected scale; any other is an error')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='class names in order, for a file without them')
    parser.add_argument(
        '--keypoints',
        nargs=2,
        type=int,
        metavar=('K', 'D'),
        help='of a pose model that does not state it: how many keypoints, and numbers of each (2 or 3)',
    )
    return parser


def convert(args) -> None:
    from mmdyn.convert import convert_from_original, convert_to_original
    from mmdyn.errors import UserError

    if args.reverse:
        if args.scale or args.classes or args.keypoints:
            raise UserError(
                '--scale, --classes and --keypoints are for conversion from the original: omit them with --reverse'
            )
        print_reverse(args.dst, convert_to_original(args.src, args.dst))
    else:
        keypoints = tuple(args.keypoints) if args.keypoints else None
        print_forward(args.dst, convert_from_original(args.src, args.dst, args.scale, args.classes, keypoints))


def describe(conversion) -> str:
    names = conversion.classes
    named = f' ({", ".join(names[:5])}{", …" if len(names) > 5 else ""})' if names else ', without names'
    return (
        f'YOLO11-{conversion.variant.scale}, {conversion.parameters:,} parameters, {conversion.variant.classes} classes'
        f'{named}, from {conversion.source!r}'
    )


def print_forward(path: str, conversion) -> None:
    print(f'{path}: {describe(conversion)}')
    print(f'test it:      {conversion.variant.command("tools/test.py", path)}')
    print(f'look at it:   {conversion.variant.command("demo/image_demo.py IMAGE", path)}')
    print(f'train from it: set load_from={path!r} in a config of the same scale and variant')


def print_reverse(path: str, conversion) -> None:
    from mmdyn.tasks import TASKS

    variant = conversion.variant
    print(f'{path}: {describe(conversion)}')
    if 'dynconv' in variant.config or any('downsample_cfg' in key or 'block_cfg' in key for key in variant.options):
        print('the original needs a patch with DynamicConv to load this file')
    else:
        load = 'safetensors.torch.load_file' if path.endswith('.safetensors') else 'torch.load'
        task = TASKS[variant.task]
        model = f"{task.original_model}('yolo11{variant.scale}{task.suffix}.yaml', nc={variant.classes})"
        print(f'load it:  model = {model}')
        print(f'          model.load_state_dict({load}({path!r}))')


if __name__ == '__main__':
    sys.exit(run_tool(convert, make_parser()))
