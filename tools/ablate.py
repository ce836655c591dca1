"""Compare configs fairly: train each with several seeds, equal data and budget, and report what differs and by how much.

The first config is the control. What is done is skipped and what was stopped goes on, so the same command continues an
interrupted comparison, and more configs or seeds add to it.
"""

import sys
from pathlib import Path

from _arguments import add_cfg_options, options_of, run_tool, tool_parser

EXAMPLE = """  python tools/ablate.py configs/yolo11n_digits.py configs/yolo11n_dynconv-bn_digits.py \\
    --seeds 3 --work-dir work_dirs/mine"""


def parse_args():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files; the first one is the control')
    parser.add_argument('--seeds', type=int, default=3, help='seeds of every config: 0, 1, … (3)')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder of the comparison')
    parser.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU that has it')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time, which share the cores or the GPUs (1)')
    add_cfg_options(parser)
    return parser.parse_args()


def ablate(args) -> None:
    from mmdyn.ablation.plan import make_plan
    from mmdyn.ablation.sweep import run_all

    plan = make_plan(args.configs, range(args.seeds), args.work_dir, options_of(args), args.amp)
    run_all(plan, Path(__file__).with_name('train.py'), args.jobs)


if __name__ == '__main__':
    sys.exit(run_tool(ablate, parse_args()))
