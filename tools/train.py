"""Train a detector, validating as it goes."""

import sys
from pathlib import Path

from _arguments import add_run_arguments, config_of, run_tool, tool_parser

EXAMPLE = """  python tools/train.py configs/yolo11n_dynconv_digits.py
  python tools/train.py configs/yolo11n_dynconv_coco.py --amp --work-dir work_dirs/try
  python tools/train.py configs/yolo11n_dynconv_coco.py --resume
  torchrun --nproc_per_node 8 tools/train.py configs/yolo11n_dynconv_coco.py --launcher pytorch"""


def parse_args():
    parser = tool_parser(__doc__, EXAMPLE)
    add_run_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU that has it')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from CHECKPOINT, or without one from the last in the work dir',
    )
    return parser.parse_args()


def is_complete(checkpoint, runner) -> bool:
    """Whether a checkpoint to resume from is of the last iteration, after which nothing is trained, or validated."""
    trained = (checkpoint or {}).get('meta', {}).get('iter', 0)
    return runner.val_loop is not None and trained >= runner.max_iters


def train(args) -> None:
    from mmengine.runner import find_latest_checkpoint

    from mmdyn.engine.launch import build_runner, check_checkpoint, enable_amp

    cfg = config_of(args)
    if args.amp:
        enable_amp(cfg)
    if args.resume is not None:
        last = find_latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
        if last is None:  # the weights that the config starts from stay
            print(f'No checkpoint in {cfg.work_dir} to resume from: training starts at the beginning.')
        else:
            cfg.resume, cfg.load_from = True, last
    start = check_checkpoint(cfg.load_from) if cfg.get('load_from') else None
    runner = build_runner(cfg, train=True)
    runner.train()
    if cfg.resume and is_complete(start, runner):
        print('Training was complete: its last checkpoint is validated.')
        runner.val_loop.run()
    work_dir = Path(runner.work_dir)
    best = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    checkpoint = best[-1] if best else find_latest_checkpoint(runner.work_dir)
    print(f'Done. To test: python tools/test.py {work_dir / Path(args.config).name} {checkpoint}')


if __name__ == '__main__':
    sys.exit(run_tool(train, parse_args()))
