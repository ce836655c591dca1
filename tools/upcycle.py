"""Turn a trained static detector into a dynamic one that computes the same, as a starting point for training.

Every expert starts as a copy of the static kernel, and the routing weights have a constant sum. So the outputs are
equal for every image, and the experts diverge in training. The config needs batch norm after its dynamic convolutions
(-bn in its name), like the static detector.
"""

import sys

from _arguments import add_config_arguments, as_typed, config_of, overrides, run_tool, tool_parser

EXAMPLE = """  python tools/convert_ultralytics.py yolo11n.pt yolo11n.pth
  python tools/upcycle.py yolo11n.pth configs/yolo11n_dynconv-bn_coco.py yolo11n_dynconv-bn.pth
  python tools/train.py configs/yolo11n_dynconv-bn_coco.py --cfg-options load_from=yolo11n_dynconv-bn.pth"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('static', help='checkpoint of the static detector')
    add_config_arguments(parser)
    parser.add_argument('out', help='checkpoint to write; must not exist')
    parser.add_argument('--seed', type=int, default=0, help='seed of the routers (0)')
    return parser


def upcycle(args) -> None:
    from mmdyn.surgery.upcycle import upcycle_checkpoint

    done = upcycle_checkpoint(args.static, config_of(args), args.out, args.seed)
    experts = ' or '.join(str(n) for n in sorted(set(done.num_experts)))
    print(f'{args.out}: {len(done.layers)} layers with {experts} experts each')
    equal = 'all but those of new layers equal' if done.new else 'equal'
    print(
        f'outputs {equal} those of {args.static}: {done.difference:.1e} relative difference on a photograph in float64'
    )
    if done.new:
        print(
            f'newly initialised, because {args.static} has none of their shape: {layers_of(done.new)}. To keep what '
            'was learned of classes, set model.bbox_head.head_module.num_classes by --cfg-options as in the file'
        )
    if done.left:
        print(f'only in {args.static}, not used: {layers_of(done.left)}')
    args.cfg_options = [f'load_from={args.out}', *(args.cfg_options or [])]
    print(as_typed(f'train it: python tools/train.py {args.config}{overrides(args)}'))


def layers_of(tensors) -> str:
    layers = list(dict.fromkeys(name.rpartition('.')[0] for name in tensors))
    return ', '.join(layers[:6]) + (f' and {len(layers) - 6} more' if len(layers) > 6 else '')


if __name__ == '__main__':
    sys.exit(run_tool(upcycle, make_parser()))
