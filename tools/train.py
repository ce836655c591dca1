"""Train a detector, with validation during training."""

import sys
from pathlib import Path

from _arguments import (
    add_config_arguments,
    add_run_arguments,
    add_training_arguments,
    as_typed,
    config_of,
    run_tool,
    tool_parser,
)

EXAMPLE = """  python tools/train.py configs/yolo11n_dynconv_digits.py
  python tools/train.py yolo11n_dynconv_coco --data my/data.yaml --imgsz 320 --epochs 100
  python tools/train.py yolo11n_dynconv-bn_coco --data my/data.yaml --weights yolo11n.pt
  python tools/train.py configs/yolo11n_dynconv_coco.py --amp --work-dir work_dirs/try
  python tools/train.py configs/yolo11n_dynconv_coco.py --resume
  torchrun --nproc_per_node 8 tools/train.py configs/yolo11n_dynconv_coco.py --launcher pytorch"""

FROM_NOTHING = (
    'No --weights: the training starts from random weights. The published recipe takes 600 epochs on COCO, a small '
    'data set 100 or more; from trained weights, 10 to 100 are enough.'
)


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_config_arguments(parser)
    add_run_arguments(parser)
    add_training_arguments(parser)
    parser.add_argument('--seed', type=int, metavar='N', help='seed of weights, order and augmentation')
    parser.add_argument(
        '--logger', metavar='NAME', help='tensorboard, wandb, mlflow, clearml, neptune, dvclive or aim, too'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU that has it')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT, or from the last one in the work dir',
    )
    return parser


def train(args) -> None:
    from mmengine.dist import is_main_process

    from mmdyn.checkpoints import check_checkpoint
    from mmdyn.engine.hooks.resume import checkpoint_for_all, latest_checkpoint
    from mmdyn.host.environment import processor
    from mmdyn.models.yolo11_detector import DETECTORS
    from mmdyn.running.amp import enable_amp
    from mmdyn.running.auto_batch import measured_batch
    from mmdyn.running.common_options import set_common_options
    from mmdyn.running.launch import build_runner
    from mmdyn.running.processes import join_processes
    from mmdyn.running.training_options import add_logger

    cfg = config_of(args)
    if args.amp:
        enable_amp(cfg)
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    if args.batch == -1:
        set_common_options(cfg, batch=measured_batch(cfg))
        print(f'batch: {cfg.train_dataloader.batch_size} images fit into the memory of the GPU')
    if args.logger:
        add_logger(cfg, args.logger)
    join_processes(cfg)
    resume = args.resume or ('auto' if cfg.get('resume') and not cfg.get('load_from') else None)
    if resume is not None:
        last = checkpoint_for_all(cfg.work_dir) if resume == 'auto' else resume
        if last is None:  # load_from of the config still applies
            print(f'No checkpoint in {cfg.work_dir} to resume from: training starts at the beginning.')
        else:
            cfg.resume, cfg.load_from = True, str(last)
    if is_main_process():
        print(f'machine: {processor()}')
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    elif is_main_process() and cfg.model.type in DETECTORS and not args.pretrained:
        print(FROM_NOTHING)
    runner = build_runner(cfg, train=True)
    runner.train()
    if is_main_process():
        work_dir = Path(runner.work_dir)
        best = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        checkpoint = best[-1] if best else latest_checkpoint(work_dir)
        test = as_typed('python tools/test.py')
        print(f'Done. To test: {test} {work_dir / Path(cfg.filename).name} {checkpoint}')


if __name__ == '__main__':
    sys.exit(run_tool(train, make_parser()))
