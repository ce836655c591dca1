"""Train the original's static YOLO11-n on BCCD, and score it as the study does: makes docs/study/bccd/original.csv.

    python tests/parity/train_original.py data/BCCD_Dataset/BCCD work_dirs/original --seeds 3

Needs requirements/parity.txt (AGPL-3.0: `make parity`). Finished seeds are skipped; ten minutes each on two cores.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import torch

import original

ROOT = Path(__file__).resolve().parents[2]


class HalfTrainer(original.Trainer):
    """bf16 and channels-last on a CPU, as the study trains; the original has autocast for GPUs only."""

    def get_model(self, *args, **kwargs):
        return super().get_model(*args, **kwargs).to(memory_format=torch.channels_last)

    def preprocess_batch(self, batch):
        batch = super().preprocess_batch(batch)
        batch['img'] = batch['img'].contiguous(memory_format=torch.channels_last)
        return batch


def score(data: Path, weights: Path, clip: bool) -> float:
    """COCO box AP of a checkpoint of the original on the validation set, by tools/test.py."""
    converted = weights.with_suffix('.pth')
    if not converted.exists():
        subprocess.run([sys.executable, ROOT / 'tools/convert_ultralytics.py', weights, converted], check=True)
    out = weights.parent / f'{weights.stem}_{"clipped" if clip else "whole"}'
    options = [f'test_dataloader.dataset.data_root={data}', 'test_dataloader.dataset.ann_file=annotations/val.json']
    command = [ROOT / 'tools/test.py', ROOT / 'configs/yolo11n_bccd.py', converted, '--work-dir', out, '--cfg-options']
    subprocess.run([sys.executable, *command, *options, f'model.test_cfg.clip_boxes={clip}'], check=True)
    return json.loads(max(out.glob('*/*.json')).read_text())['coco/bbox_mAP']


def main() -> None:
    """Train, score, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='BCCD with annotations/*.json, see configs/yolo11n_bccd.py')
    parser.add_argument('out', type=Path, help='folder of the runs and of original.csv')
    parser.add_argument('--seeds', type=int, default=3, help='seeds 0 to N - 1 (3)')
    parser.add_argument('--epochs', type=int, default=60, help='epochs (60)')
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    splits = {split: (data / f'annotations/{split}.json', data / 'JPEGImages') for split in ('train', 'val')}
    yaml = out / 'set/data.yaml'
    if not yaml.exists():
        original.yolo_dataset(yaml.parent, splits)
    import ultralytics.engine.trainer  # after `original`, which sets the package's environment

    # The original's own context is for GPUs.
    ultralytics.engine.trainer.autocast = lambda enabled, device='cpu': torch.autocast('cpu', torch.bfloat16)
    lines = [('seed', 'checkpoint', 'ap', 'ap_not_clipped')]
    for seed in range(arguments.seeds):
        run = out / f'seed_{seed}'
        if not (run / 'done').exists():
            settings = dict(imgsz=320, epochs=arguments.epochs, batch=16, seed=seed)
            original.train(yaml, run, 'static', HalfTrainer, **settings)
            (run / 'done').touch()
        for name in ('last', 'best'):
            weights = run / f'weights/{name}.pt'
            lines.append((seed, name, *(f'{score(data, weights, clip):.3f}' for clip in (True, False))))
    with (out / 'original.csv').open('w', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows(lines)
    print(f'Wrote {out / "original.csv"}')


if __name__ == '__main__':
    main()
