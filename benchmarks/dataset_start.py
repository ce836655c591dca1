"""The start of a run at the size of COCO: seconds and memory until the first batch, ours, mmdet's and the original's.

Makes 118,287 images (hard links of a few) and 828,000 boxes with polygons, once. Every loader starts in a process of
its own; imports are not counted. Memory is that beyond the same loader on 100 images.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from _timing import ROOT, benchmark_parser, write_json

EXAMPLE = """  python benchmarks/dataset_start.py --folder /tmp/coco_sized
  python benchmarks/dataset_start.py --short         # 5,000 images"""
IMAGES, OBJECTS, SMALL = 118_287, 7, 100
SIZE = (640, 480)
KINDS = ('mmdyn, first start', 'mmdyn, later', 'mmdet CocoDataset', 'original, first start', 'original, later')


def make_set(folder: Path, count: int) -> Path:
    """Images as links, annotations in COCO's form with polygons and as YOLO's text files; kept if they are there."""
    import cv2
    import numpy as np

    if (folder / 'whole').exists():
        return folder
    rng = np.random.default_rng(0)
    for name in ('images/train', 'labels/train', 'pool'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pool = []
    for i in range(64):
        small = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        pool.append(folder / f'pool/{i}.jpg')
        cv2.imwrite(str(pool[-1]), cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC))
    width, height = SIZE
    with (folder / 'train.json').open('w') as file:
        file.write('{"images": [')
        for i in range(count):
            comma = ', ' if i else ''
            file.write(f'{comma}{{"id": {i + 1}, "file_name": "{i:012d}.jpg", "width": {width}, "height": {height}}}')
            os.link(pool[i % len(pool)], folder / f'images/train/{i:012d}.jpg')
        file.write('], "categories": [')
        file.write(', '.join(f'{{"id": {i + 1}, "name": "class {i}"}}' for i in range(80)))
        file.write('], "annotations": [')
        for i in range(count):
            lines = []
            for j, (x, y, w, h) in enumerate(rng.uniform((0, 0, 8, 8), (400, 300, 200, 150), (OBJECTS, 4)).round(2)):
                label, number = int(rng.integers(80)), i * OBJECTS + j
                corners = ', '.join(f'{v:.2f}' for v in (rng.random((14, 2)) * (w, h) + (x, y)).ravel())
                comma = ', ' if number else ''
                file.write(
                    f'{comma}{{"id": {number + 1}, "image_id": {i + 1}, "category_id": {label + 1}, "bbox": '
                    f'[{x}, {y}, {w}, {h}], "area": {w * h / 2:.2f}, "iscrowd": 0, "segmentation": [[{corners}]]}}'
                )
                centre = (x + w / 2) / width, (y + h / 2) / height
                lines.append(f'{label} {centre[0]:.6f} {centre[1]:.6f} {w / width:.6f} {h / height:.6f}')
            (folder / f'labels/train/{i:012d}.txt').write_text('\n'.join(lines))
        file.write(']}')
    names = '\n'.join(f'  {i}: class {i}' for i in range(80))
    (folder / 'data.yaml').write_text(f'path: {folder}\ntrain: images/train\nval: images/train\nnames:\n{names}\n')
    (folder / 'whole').touch()
    return folder


def measure_mmdyn(folder: Path):
    """The first batch of the COCO config."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    from mmdyn.running import load_config

    loader = load_config('yolo11n_coco').train_dataloader
    loader.update(num_workers=1, persistent_workers=True, pin_memory=False)
    loader.dataset.update(data_root=f'{folder}/', ann_file='train.json', data_prefix=dict(img='images/train/'))
    yield
    with DefaultScope.overwrite_default_scope('mmyolo'):
        batches = iter(Runner.build_dataloader(loader, seed=0))
    yield next(batches), batches


def measure_mmdet(folder: Path):
    """The same with mmdet's data set, which does not look at the images."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    from mmdyn.running import load_config

    loader = load_config('yolo11n_coco').train_dataloader
    loader.update(num_workers=1, persistent_workers=True, pin_memory=False)
    loader.dataset.update(data_root=f'{folder}/', ann_file='train.json', data_prefix=dict(img='images/train/'))
    loader.dataset.type = 'YOLOv5CocoDataset'
    loader.dataset.metainfo = dict(classes=tuple(f'class {i}' for i in range(80)))
    yield
    with DefaultScope.overwrite_default_scope('mmyolo'):
        batches = iter(Runner.build_dataloader(loader, seed=0))
    yield next(batches), batches


def measure_original(folder: Path):
    """The first batch of the original's loader."""
    from _peers import original_yolo11

    original_yolo11()
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    yield
    data = check_det_dataset(str(folder / 'data.yaml'))
    settings = dict(imgsz=640, mosaic=1.0, cache=False)
    dataset = build_yolo_dataset(get_cfg(overrides=settings), data['train'], 16, data, mode='train')
    batches = iter(build_dataloader(dataset, 16, workers=1, shuffle=True))
    yield next(batches), batches


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Seconds to the first batch, and memory of this process and of its worker in MiB."""
    maker = {'mmdyn': measure_mmdyn, 'mmdet': measure_mmdet, 'original': measure_original}[kind]
    steps = maker(folder)
    next(steps)  # imports
    before, start = resident('self'), time.perf_counter()
    first, batches = next(steps)
    seconds = time.perf_counter() - start
    for _ in range(3):
        next(batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    after = resident('self')
    workers = [child.pid for child in multiprocessing.active_children()]
    private = max((resident(str(pid), 'Private_Dirty') for pid in workers), default=0.0)
    del first
    return dict(seconds=seconds, main=after - before, peak=peak - before, worker=private)


def resident(pid: str, field: str = 'Rss') -> float:
    """Memory of a process in MiB."""
    rows = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(f'{field}:')) / 1024


def start(kind: str, folder: Path) -> dict[str, float]:
    """Measure in a process of its own."""
    environment = {**os.environ, 'MMDYN_CACHE': str(folder / 'cache'), 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, __file__, '--measure', kind, '--folder', str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{kind}: {done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = benchmark_parser(__doc__, EXAMPLE)
    parser.add_argument('--folder', type=Path, default=ROOT / 'data/coco_sized', help='the set (data/coco_sized)')
    parser.add_argument('--measure', choices=('mmdyn', 'mmdet', 'original'), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, write."""
    args = parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder)))
        return
    count = 5000 if args.short else IMAGES
    large = make_set(args.folder.absolute() / str(count), count)
    small = make_set(args.folder.absolute() / str(SMALL), SMALL)
    figures = {}
    for name in KINDS:
        kind = name.split(' ')[0].rstrip(',')
        if 'later' not in name:
            for folder in (large, small):
                shutil.rmtree(folder / 'cache', ignore_errors=True)
                (folder / 'labels/train.cache').unlink(missing_ok=True)
            start(kind, small)
            shutil.rmtree(small / 'cache', ignore_errors=True)
        base, figure = start(kind, small), start(kind, large)
        figures[name] = dict(
            seconds=figure['seconds'],
            **{f'{key}_mib': figure[key] - base[key] for key in ('main', 'peak', 'worker')},
        )
        row = figures[name]
        print(
            f'{name:<24}{row["seconds"]:7.1f} s   main {row["main_mib"]:7.0f} MiB, peak {row["peak_mib"]:7.0f}, '
            f'private to a worker {row["worker_mib"]:6.0f}'
        )
    name = 'dataset_start_short.json' if args.short else 'dataset_start.json'
    write_json(args.out / name, dict(images=count, objects=count * OBJECTS, starts=figures))


if __name__ == '__main__':
    main()
