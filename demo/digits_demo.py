"""The demo: generate the digits, train YOLO11-n with DynamicConv on them, test it, draw predictions and curves.

Needs no data, no download and no GPU. `make demo` runs this; `make demo DEMO=segment/yolo11n_dynconv_digits` does it
with masks, `DEMO=pose/yolo11n_dynconv_digits` with keypoints.
"""

import contextlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import run_tool, tool_parser

EXAMPLE = """  python demo/digits_demo.py --epochs 4
  python demo/digits_demo.py --config segment/yolo11n_dynconv_digits"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('--config', default='yolo11n_dynconv_digits', help='name or file of a config')
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

    from mmdyn.analysis.ground_truth import prediction_grid
    from mmdyn.analysis.pictures import draw_curves
    from mmdyn.engine.optim.wrappers import cpu_has_bf16
    from mmdyn.files import write_image
    from mmdyn.running.amp import enable_amp
    from mmdyn.running.config_file import load_config
    from mmdyn.running.launch import build_runner
    from mmdyn.tasks import task_of

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
    task = task_of(tester.model)
    scores = ', '.join(f'{name} {metrics[key]:.3f}' for name, key in task.metrics.items() if key in metrics)
    grid, curves = args.out_dir / 'predictions.png', args.out_dir / 'curves.png'
    draw_curves(runner.work_dir, curves)
    print(f'\nValidation set: {scores}\ncheckpoint   {checkpoint}')
    if task.name != 'classify':  # whose pictures are in the report
        write_image(grid, prediction_grid(cfg, checkpoint, list(range(min(8, len(tester.test_dataloader.dataset))))))
        print(f'predictions  {grid} (left: ground truth, right: model)')
    print(f'curves       {curves}\nnext         python tools/test.py {args.config} {checkpoint}')


if __name__ == '__main__':
    sys.exit(run_tool(run_demo, make_parser()))
