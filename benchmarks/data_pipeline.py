"""The training pipeline: images per second of one worker, ours and the original's, same images and augmentation."""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _timing import ROOT, benchmark_parser, caption, prepare, pyplot, write_results

EXAMPLE = """  python benchmarks/data_pipeline.py --short
  python benchmarks/data_pipeline.py --images DIR --annotations FILE.json   # other images, boxes in COCO format"""

BATCH = 16
SIDE = 640  # of the mosaic, as in the COCO config


def parse_args():
    """The command line."""
    parser = benchmark_parser(__doc__, EXAMPLE)
    parser.add_argument('--images', type=Path, help='folder of images (generated digits)')
    parser.add_argument('--annotations', type=Path, help='their boxes in COCO format')
    args = parser.parse_args()
    if (args.images is None) != (args.annotations is None):
        parser.error('--images and --annotations must be set together')
    return args


def our_loader(images: Path, annotations: Path) -> Iterator:
    """Batches of the COCO config's pipeline: mosaic, affine, colour, flip."""
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    cfg = Config.fromfile(ROOT / 'configs' / 'yolo11n_coco.py')
    loader = cfg.train_dataloader
    loader.update(batch_size=BATCH, num_workers=1, pin_memory=False)
    loader.dataset.update(data_root='', ann_file=str(annotations), data_prefix=dict(img=str(images)))
    with DefaultScope.overwrite_default_scope('mmyolo'):
        built = Runner.build_dataloader(loader, seed=0)
    return itertools.chain.from_iterable(itertools.repeat(built))


def original_loader(original, images: Path, annotations: Path, folder: Path) -> Iterator:
    """Batches of the original's pipeline, with the augmentation of the config."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(original.yolo_dataset(folder, {s: (annotations, images) for s in ('train', 'val')})))
    settings = dict(imgsz=SIDE, mosaic=1.0, mixup=0.0, translate=0.1, scale=0.5, fliplr=0.5, cache=False)
    dataset = build_yolo_dataset(get_cfg(overrides=settings), data['train'], BATCH, data, mode='train')
    return itertools.chain.from_iterable(itertools.repeat(build_dataloader(dataset, BATCH, workers=1, shuffle=True)))


def rate(batches: Iterator, count: int) -> float:
    """Images per second, after the prefetched batches."""
    for _ in range(4):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * BATCH / (time.perf_counter() - start)


def loaders(args, folder: Path) -> dict[str, Callable[[], Iterator]]:
    """The loaders to measure, by name."""
    from _peers import original_yolo11

    from mmdyn.datasets import make_digits

    images, annotations = args.images, args.annotations
    if images is None:
        make_digits(folder / 'digits', seed=0, splits={'train': 512, 'val': 1})
        images, annotations = folder / 'digits' / 'train', folder / 'digits' / 'annotations' / 'train.json'
    found = {'mmdyn': lambda: our_loader(images, annotations)}
    original = original_yolo11()
    if original is None:
        print('the original is not installed: pip install -r requirements/parity.txt to compare with it')
    else:
        found['original'] = lambda: original_loader(original, images, annotations, folder / 'original')
    return found


def plot(rates: dict[str, dict], title: str):
    """Bars with their quartiles."""
    figure, axis = pyplot().subplots(figsize=(7, 2.4))
    medians = [r['median'] for r in rates.values()]
    spread = [[r['median'] - r['q1'] for r in rates.values()], [r['q3'] - r['median'] for r in rates.values()]]
    axis.barh(list(rates), medians, xerr=spread, color=['tab:blue', 'tab:green'][: len(rates)])
    for y, value in enumerate(medians):
        axis.text(value * 0.5, y, f'{value:.0f}', va='center', ha='center', color='white')
    axis.invert_yaxis()
    axis.set_xlabel('images per second')
    axis.set_title(f'{title}\n{caption()}', fontsize=9)
    return figure


def main() -> None:
    """Measure, write."""
    args = parse_args()
    from mmdyn.analysis.timing import summary

    prepare(args.threads)
    rounds, count = (3, 3) if args.short else (args.repeats, 8)
    with tempfile.TemporaryDirectory() as folder:
        batches = {name: make() for name, make in loaders(args, Path(folder)).items()}
        rates: dict[str, list[float]] = {name: [] for name in batches}
        for _ in range(rounds):
            for name, iterator in batches.items():
                rates[name].append(rate(iterator, count))
        del batches
    figures = {name: summary(values) for name, values in rates.items()}
    for name, figure in figures.items():
        print(f'{name}: {figure["median"]:.1f} images per second ({figure["q1"]:.1f} to {figure["q3"]:.1f})')
    content = {'images': str(args.images or 'digits'), 'side': SIDE, 'batch': BATCH, 'images_per_second': figures}
    if 'original' in figures:
        content['ratio'] = figures['mmdyn']['median'] / figures['original']['median']
        print(f'{content["ratio"]:.3f}  mmdyn / original')
    title = f'Training pipeline at {SIDE} px, one worker'
    write_results(args, 'data_pipeline', content, plot(figures, title))


if __name__ == '__main__':
    sys.exit(main())
