"""Exported detectors in ONNX Runtime and OpenVINO: static, dynamic in every form, and collapsed."""

import sys
import tempfile
from pathlib import Path

from _timing import ROOT, benchmark_parser, caption, prepare, pyplot, write_results

EXAMPLE = """  pip install -r requirements/deploy.txt
  python benchmarks/exported_latency.py --short
  python benchmarks/exported_latency.py            # 6 minutes on 2 cores"""

FORMATS = {'onnx': '.onnx', 'openvino': '.xml'}
RUNTIMES = {'onnx': 'ONNX Runtime', 'openvino': 'OpenVINO'}


def trained_alike(config: str, folder: Path) -> Path:
    """A checkpoint with random weights, and batch norm statistics of a photograph."""
    import torch
    from mmengine.config import Config

    from mmdyn.datasets.photograph import photograph
    from mmdyn.models.build import build_model

    torch.manual_seed(0)
    model = build_model(Config.fromfile(ROOT / 'configs' / config))
    model.train()
    with torch.no_grad():
        model(photograph() / 255, None, mode='tensor')
    path = folder / f'{config}.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def export_all(variants: dict, folder: Path, kind: str, batches: list) -> dict[tuple, Path]:
    """Files by variant and batch.

    Args:
        variants: By name: config, checkpoint, and form of the export.
        folder: Output folder.
        kind: Format.
        batches: Batch sizes, None for dynamic.
    """
    from mmdyn.export.export import export_detector
    from mmdyn.export.options import ExportOptions

    files = {}
    for name, (cfg, checkpoint, form) in variants.items():
        for batch in batches if form is None else [None]:
            options = ExportOptions(format=kind, batch=batch, form=form)
            target = folder / f'{name} {batch}{FORMATS[kind]}'
            files[name, batch] = export_detector(cfg, checkpoint, target, options).path
    return files


def time_files(files: dict, batch: int, side: int, repeats: int, threads: int | None) -> dict:
    """Seconds of a batch by name of the file, interleaved.

    Args:
        files: Exported files that accept this batch size.
        batch: Batch size.
        side: Height and width of the images.
        repeats: Number of rounds.
        threads: Threads of the runtime.
    """
    import numpy as np

    from mmdyn.analysis.timing import interleaved
    from mmdyn.inference.runtimes import open_exported

    images = np.random.default_rng(0).random((batch, 3, side, side), np.float32)
    calls = {name: open_exported(path, threads).run for name, path in files.items()}
    return interleaved({name: lambda run=run: run(images) for name, run in calls.items()}, repeats)


def variants_of(folder: Path) -> dict:
    """The detectors to compare, by name."""
    from mmengine.config import Config

    def load(name: str):
        return Config.fromfile(ROOT / 'configs' / name)

    names = {
        'static': 'yolo11n_coco.py',
        'dynconv': 'yolo11n_dynconv_coco.py',
        'dynconv-bn': 'yolo11n_dynconv-bn_coco.py',
    }
    made = {name: (load(config), trained_alike(config, folder), None) for name, config in names.items()}
    cfg, checkpoint, _ = made['dynconv-bn']
    made['collapsed'] = (*collapsed(cfg, checkpoint, folder), None)
    for form in ('mixed_outputs', 'mixed_inputs'):
        made[f'dynconv-bn, {form}'] = (cfg, checkpoint, form)
    return made


def collapsed(cfg, checkpoint: Path, folder: Path) -> tuple:
    """The static counterpart of a dynamic checkpoint, with equal routing: its time does not depend on the values."""
    import torch

    from mmdyn.layers import dynamic_layers
    from mmdyn.running.loading import load_checkpoint_model
    from mmdyn.surgery.collapse import collapsed_state
    from mmdyn.surgery.counterpart import static_counterpart

    model = load_checkpoint_model(cfg, checkpoint).model
    routing = {name: torch.full((1, layer.num_experts), 0.5) for name, layer in dynamic_layers(model).items()}
    path = folder / 'collapsed.pth'
    torch.save(dict(state_dict=collapsed_state(model, set(routing), routing)), path)
    return static_counterpart(cfg), path


def measure(repeats: int, threads: int | None, batches: tuple[int, ...]) -> list[dict]:
    """Rows of the result."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants = variants_of(folder)
        for kind in FORMATS:
            files = export_all(variants, folder, kind, [*batches, None])
            for batch in batches:
                fits = {f'{n}, batch {b or "open"}': f for (n, b), f in files.items() if b in (batch, None)}
                times = time_files(fits, batch, 640, repeats, threads)
                base = {b: times[f'static, batch {b}']['median'] for b in (batch, 'open')}
                for label, time in times.items():
                    ratio = time['median'] / base['open' if label.endswith('open') else batch]
                    rows.append(dict(runtime=kind, images=batch, file=label, ratio=ratio, **time))
                    print(f'{RUNTIMES[kind]:13} {batch} images  {label:40} {time["median"] * 1e3:7.1f} ms  {ratio:.3f}')
    return rows


def draw(rows: list[dict], title: str):
    """Ratio to the static file of the same kind, by runtime and batch."""
    plt = pyplot()
    panels = list(dict.fromkeys((r['runtime'], r['images']) for r in rows))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.2), sharey=True)
    for axis, (runtime, images) in zip(axes, panels, strict=True):
        part = [r for r in rows if (r['runtime'], r['images']) == (runtime, images)]
        axis.barh([r['file'].replace(f'batch {images}', 'fixed batch') for r in part], [r['ratio'] for r in part])
        axis.axvline(1, color='black', lw=1)
        axis.set(title=f'{RUNTIMES[runtime]}, {images} at a time', xlabel='time over the static file of its kind')
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=9)
    return figure


def main() -> None:
    """Measure, print, write and draw."""
    args = benchmark_parser(__doc__, EXAMPLE).parse_args()
    prepare(args.threads)
    rows = measure(3 if args.short else 4 * args.repeats, args.threads, (1,) if args.short else (1, 8))
    write_results(args, 'exported_latency', {'rows': rows}, draw(rows, caption()))


if __name__ == '__main__':
    sys.exit(main())
