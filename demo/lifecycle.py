"""The life of a detector on the digits, from static training to deployment and back, reported on one page.

Train a static YOLO11-n -> upcycle it (equal outputs) -> fine-tune the dynamic detector -> fold batch norms -> export
to ONNX and OpenVINO (equal AP) -> collapse to a static detector -> export that. `make lifecycle` runs this.
"""

import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import ROOT, run_tool, tool_parser

EXAMPLE = '  python demo/lifecycle.py --epochs 6 4'
STATIC, DYNAMIC = ROOT / 'configs/yolo11n_digits.py', ROOT / 'configs/yolo11n_dynconv-bn_digits.py'
SHOWN_IMAGES, LEAST_SCORE = 5, 0.25  # images on the page, and score threshold


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument(
        '--epochs', type=int, nargs=2, default=(8, 4), help='epochs of static training and of fine-tuning (8 4)'
    )
    parser.add_argument(
        '--data-root', default='data/digits/', help='folder of the digits, which are generated if missing'
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('lifecycle_output'), help='output folder (lifecycle_output)'
    )
    parser.add_argument('--rounds', type=int, default=15, help='rounds of timing (15)')
    return parser


def config(path: Path, args, **options):
    """Load a config, with the data root of the command line."""
    from mmdyn.running.config_file import load_config

    data = {f'{split}_dataloader.dataset.data_root': args.data_root for split in ('train', 'val', 'test')}
    return load_config(str(path), data | options, str(args.out_dir / 'work_dirs' / path.stem), 'none')


def train(path: Path, epochs: int, args, **options) -> Path:
    """Train, and return the checkpoint of the last epoch."""
    import torch

    from mmdyn.engine.optim.wrappers import cpu_has_bf16
    from mmdyn.running.amp import enable_amp
    from mmdyn.running.launch import build_runner

    cfg = config(path, args, **{'train_cfg.max_epochs': epochs, 'train_cfg.val_interval': epochs} | options)
    if torch.cuda.is_available() or cpu_has_bf16():
        enable_amp(cfg)
    runner = build_runner(cfg, train=True)
    runner.train()
    return Path(runner.work_dir, f'epoch_{epochs}.pth')


def tell_story(args) -> None:
    from mmdyn.export.export import export_detector
    from mmdyn.export.options import ExportOptions
    from mmdyn.inference.evaluation import evaluate
    from mmdyn.surgery.collapse import collapse_checkpoint
    from mmdyn.surgery.upcycle import upcycle_checkpoint

    began, out = time.time(), args.out_dir
    for path in (STATIC, DYNAMIC):  # of an earlier run
        shutil.rmtree(out / 'work_dirs' / path.stem, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    for old in ('upcycled.pth', 'collapsed.pth', 'collapsed.py'):
        (out / old).unlink(missing_ok=True)
    static = train(STATIC, args.epochs[0], args)
    upcycled = out / 'upcycled.pth'
    dynamic_cfg, static_cfg = config(DYNAMIC, args), config(STATIC, args)
    equal = upcycle_checkpoint(static, dynamic_cfg, upcycled)
    start = {'load_from': str(upcycled), 'optim_wrapper.optimizer.lr': 0.0005}
    tuned = train(DYNAMIC, args.epochs[1], args, **start)
    collapsed = out / 'collapsed.pth'
    collapse = collapse_checkpoint(dynamic_cfg, tuned, collapsed)
    (out / 'collapsed.md').write_text(collapse.table() + '\n')
    files, exports = {}, {}
    for kind, suffix in (('onnx', '.onnx'), ('openvino', '.xml')):
        for name, cfg, checkpoint in (
            ('static', static_cfg, static),
            ('dynamic', dynamic_cfg, tuned),
            ('collapsed', collapse.cfg, collapsed),
        ):
            for batch in (1, 8, None):
                target = out / f'{name}_{batch or "any"}{suffix}'
                exports[target.name] = export_detector(cfg, checkpoint, target, ExportOptions(kind, batch))
                files[kind, name, batch] = target
    models = {
        'static, trained': (static_cfg, static, {}),
        'upcycled to dynamic': (dynamic_cfg, upcycled, {}),
        'dynamic, fine-tuned': (dynamic_cfg, tuned, {}),
        'batch norms folded': (dynamic_cfg, tuned, {'fuse': True}),
        'ONNX Runtime': (dynamic_cfg, files['onnx', 'dynamic', None], {}),
        'OpenVINO': (dynamic_cfg, files['openvino', 'dynamic', None], {}),
        'collapsed to static': (collapse.cfg, collapsed, {}),
        'collapsed, ONNX Runtime': (collapse.cfg, files['onnx', 'collapsed', None], {}),
    }
    figures = {name: evaluate(cfg, path, square=True, **kwargs) for name, (cfg, path, kwargs) in models.items()}
    pictures = draw_steps(models, args)
    seconds = time_all(files, args.rounds)
    write_page(args, equal, collapse, exports, figures, pictures, seconds, time.time() - began)
    print(f'\nReport: {out / "lifecycle.md"}. Figures: {out / "results.json"}')


def draw_steps(models: dict, args) -> dict[str, str]:
    """Draw the detections of every step on the same images, one strip per step."""
    import cv2
    import numpy as np

    from mmdyn.files import write_image
    from mmdyn.inference.checkpoint_detector import CheckpointDetector
    from mmdyn.inference.onnx_detector import captions, draw
    from mmdyn.inference.runtimes import open_exported

    images = [cv2.imread(str(p)) for p in sorted(Path(args.data_root, 'val').iterdir())[:SHOWN_IMAGES]]
    strips = {}
    for name, (cfg, path, _) in models.items():
        detector = CheckpointDetector(cfg, path) if path.suffix == '.pth' else open_exported(path)
        found = detector(images, LEAST_SCORE)
        strip = np.hstack([draw(i, f, captions(f, detector.names)) for i, f in zip(images, found, strict=True)])
        strips[name] = f'{name.replace(", ", "-").replace(" ", "-")}.jpg'
        write_image(args.out_dir / strips[name], strip)
    return strips


def time_all(files: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds per batch, by runtime and batch size, and by variant."""
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    from exported_latency import time_files

    seconds = {}
    for kind in ('onnx', 'openvino'):
        for batch in (1, 8):
            alike = {name: path for (k, name, b), path in files.items() if (k, b) == (kind, batch)}
            times = time_files(alike, batch, 320, rounds, None)
            seconds[f'{kind}, batch {batch}'] = {name: time['median'] for name, time in times.items()}
    return seconds


def write_page(args, equal, collapse, exports, figures, pictures, seconds, spent) -> None:
    """Write the page, and its figures as JSON."""
    from mmdyn.files import write_json, write_text
    from mmdyn.inference.evaluation import ap_table

    latency = ['| runtime | static | dynamic | collapsed | dynamic / static |', '|---|---|---|---|---|']
    for name, row in seconds.items():
        times = ' | '.join(f'{row[v] * 1e3:.1f} ms' for v in ('static', 'dynamic', 'collapsed'))
        latency.append(f'| {name} | {times} | {row["dynamic"] / row["static"]:.2f} |')
    dynamic = {name: e for name, e in exports.items() if name.startswith('dynamic')}
    rows = [f'| {n} | {e.cost} | {e.boxes:.1e} px | {e.scores:.1e} |' for n, e in dynamic.items()]
    strips = [f'**{name}**\n\n![detections: {name}]({file})' for name, file in pictures.items()]
    page = '\n\n'.join(
        [
            '# The life of a detector',
            f'YOLO11-n on the digits at 320 px: {args.epochs[0]} epochs static, {args.epochs[1]} more dynamic. '
            f'`python demo/lifecycle.py` made everything on this page in {spent / 60:.0f} minutes.',
            '## Average precision\n\nOn the validation set, with one evaluator. Fine-tuning is also more training: '
            'to measure the effect of the experts, a static control needs as many epochs.\n\n' + ap_table(figures),
            '## Upcycling\n\n'
            f'{len(equal.layers)} convolutions became dynamic. The largest difference of the raw outputs on a '
            f'photograph was {equal.difference:.1e} of the largest output, in float64.',
            '## Collapse\n\n' + collapse.table(),
            '## Export\n\n| file | dynamic convolutions | boxes off by | scores off by |\n|---|---|---|---|\n'
            + '\n'.join(rows),
            '## Latency\n\nMedians of interleaved rounds on this machine.\n\n' + '\n'.join(latency),
            '## Detections\n\nThe same images at every step.\n\n' + '\n\n'.join(strips),
        ]
    )
    numbers = dict(figures=figures, difference=equal.difference, seconds=seconds, spent=spent)
    numbers['exports'] = {name: dict(boxes=e.boxes, scores=e.scores) for name, e in exports.items()}
    write_json(args.out_dir / 'results.json', numbers, indent=1)
    write_text(args.out_dir / 'lifecycle.md', f'{page}\n')


if __name__ == '__main__':
    sys.exit(run_tool(tell_story, make_parser()))
