"""The demo: generate the digits, train YOLO11-n with DynamicConv on them, test it, draw boxes and curves.

Needs no data, no download and no GPU. `make demo` runs this.
"""

import contextlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import ROOT, run_tool, tool_parser

EXAMPLE = '  python demo/digits_demo.py --epochs 4'


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('--config', default=str(ROOT / 'configs/yolo11n_dynconv_digits.py'), help='config file')
    parser.add_argument('--epochs', type=int, help='number of epochs (that of the config)')
    parser.add_argument('--out-dir', type=Path, default=Path('demo_output'), help='output folder (demo_output)')
    return parser


@contextlib.contextmanager
def quiet():
    """Redirect the console log while the runner is built: MMEngine's handler keeps the stream of that time."""
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def run_demo(args) -> None:
    import torch

    from mmdyn.analysis.pictures import draw_curves, prediction_grid
    from mmdyn.engine.optim.wrappers import cpu_has_bf16
    from mmdyn.files import write_image
    from mmdyn.running.amp import enable_amp
    from mmdyn.running.config_file import load_config
    from mmdyn.running.launch import build_runner

    cfg = load_config(args.config, None, str(args.out_dir / 'work_dir'), 'none')
    if args.epochs:
        cfg.train_cfg.max_epochs = args.epochs
    if torch.cuda.is_available() or cpu_has_bf16():
        enable_amp(cfg)
    cfg.custom_hooks.append(dict(type='EpochLineHook'))
    with quiet():
        runner = build_runner(cfg, train=True)
    print(f'training for {runner.max_epochs} epochs; the log and the config are in {runner.log_dir}')
    runner.train()
    checkpoint = Path(runner.work_dir, 'last_checkpoint').read_text()
    cfg.load_from = checkpoint
    with quiet():
        tester = build_runner(cfg, train=False)
    metrics = tester.test()
    grid, curves = args.out_dir / 'predictions.png', args.out_dir / 'curves.png'
    write_image(grid, prediction_grid(cfg, checkpoint, list(range(8))))
    draw_curves(runner.work_dir, curves)
    print(
        f'\nValidation set: box AP {metrics["coco/bbox_mAP"]:.3f}, AP50 {metrics["coco/bbox_mAP_50"]:.3f}\n'
        f'checkpoint   {checkpoint}\n'
        f'predictions  {grid} (left: ground truth, right: model)\n'
        f'curves       {curves}\n'
        f'next         python tools/test.py {args.config} {checkpoint}'
    )


if __name__ == '__main__':
    sys.exit(run_tool(run_demo, make_parser()))
