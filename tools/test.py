"""Test a checkpoint, or an exported file: average precision, or accuracy, on the test set; predictions; pictures."""

import sys
from pathlib import Path

from _arguments import (
    EXPORTED,
    add_data_arguments,
    add_loader_arguments,
    add_model_arguments,
    add_run_arguments,
    config_of,
    run_tool,
    settle_model,
    tool_parser,
)

EXAMPLE = """  python tools/test.py configs/yolo11n_dynconv_digits.py work_dirs/yolo11n_dynconv_digits/epoch_18.pth
  python tools/test.py CONFIG CHECKPOINT --tta --out predictions.pkl --show-dir pictures
  python tools/test.py CONFIG CHECKPOINT --fuse --json-prefix results/mine     # results/mine.bbox.json, no AP
  python tools/test.py CONFIG model.onnx
  python tools/test.py --weights yolo11n.pt --data my/data.yaml"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_model_arguments(parser, 'checkpoint file, or a file of tools/export.py: .onnx, .xml, .param, .tflite, …')
    add_run_arguments(parser)
    add_data_arguments(parser)
    add_loader_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions as a pickle')
    parser.add_argument(
        '--json-prefix', metavar='PREFIX', help='write PREFIX.bbox.json in COCO format, without evaluation'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation: three scales, flipped and not')
    parser.add_argument('--fuse', action='store_true', help='fold batch norms into convolutions first')
    parser.add_argument('--show', action='store_true', help='show every picture in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='write every picture to WORK_DIR/TIMESTAMP/DIR')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show displays each picture (2)')
    return parser


def test_exported(cfg, args):
    from mmdyn.errors import UserError
    from mmdyn.inference.exported_detector import use_exported

    if args.tta or args.fuse:
        raise UserError(f'--tta and --fuse are for checkpoints: omit them for the exported file {args.checkpoint}')
    return use_exported(cfg, args.checkpoint)


def draw_classes(runner, args) -> None:
    """Let mmpretrain's hook draw every image of a classifier's test."""
    hook = dict(type='mmpretrain.VisualizationHook', enable=True, interval=1, show=args.show, wait_time=args.wait_time)
    runner.register_hook(dict(hook, out_dir=str(Path(runner.log_dir, args.show_dir)) if args.show_dir else None))


def test(args) -> None:
    from mmdet.engine.hooks.utils import trigger_visualization_hook
    from mmengine.evaluator import DumpResults

    from mmdyn.checkpoints import check_checkpoint
    from mmdyn.errors import UserError
    from mmdyn.running.launch import build_runner
    from mmdyn.running.testing import enable_fuse, enable_tta, task_of_config

    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out writes a pickle, so FILE must end in .pkl or .pickle; got {args.out}')
    settle_model(args)
    cfg = config_of(args)
    if Path(args.checkpoint).suffix in EXPORTED.values():
        cfg = test_exported(cfg, args)
    else:
        check_checkpoint(args.checkpoint)
        cfg.load_from = args.checkpoint
        cfg.resume = False
    draws, classifies = bool(args.show or args.show_dir), task_of_config(cfg).name == 'classify'
    if draws and not classifies:
        trigger_visualization_hook(cfg, args)
    if args.json_prefix:
        cfg.test_evaluator.update(format_only=True, outfile_prefix=args.json_prefix)
    if args.tta:
        enable_tta(cfg)
    if args.fuse:
        enable_fuse(cfg)
    runner = build_runner(cfg, train=False)
    if draws and classifies:
        draw_classes(runner, args)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    sys.exit(run_tool(test, make_parser()))
