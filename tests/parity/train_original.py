"""Train the original's static YOLO11-n on a data set, and score it as a study of mmdyn does: writes original.csv.

    python tests/parity/train_original.py data/BCCD_Dataset/BCCD work_dirs/original
    python tests/parity/train_original.py data/nuclei work_dirs/original_nuclei --task segment   # or obb
    python tests/parity/train_original.py data/deeppcb work_dirs/original_deeppcb --epochs 10 --optimizer auto \\
        --weights mmdyn/weights/yolo11n_digits.pth

DATA is what ``mmdyn train --data`` takes. Needs requirements/parity.txt (AGPL-3.0: `make parity`). Finished seeds are
skipped; ten minutes each on two cores for 200 images and 60 epochs.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

import original
from mmdyn.convert import convert_to_original
from mmdyn.datasets.array_dataset import annotations_of
from mmdyn.datasets.data_source import find_data
from mmdyn.running.dataset_images import build_quietly

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {'detect': 'yolo11n_coco', 'segment': 'segment/yolo11n_coco', 'obb': 'obb/yolo11n_dota'}
# Augmentation where a config has more than the original's default: images from above are turned and mirrored both ways.
AUGMENT = {'obb': dict(degrees=180.0, flipud=0.5, scale=0.9, mixup=0.15)}
METRIC = {'detect': 'coco/bbox_mAP', 'segment': 'coco/segm_mAP', 'obb': 'coco/oriented_mAP'}


class HalfTrainer(original.OfVariant):
    """bf16 and channels-last on a CPU, as the study trains; the original has autocast for GPUs only."""

    def get_model(self, *args, **kwargs):
        return super().get_model(*args, **kwargs).to(memory_format=torch.channels_last)

    def preprocess_batch(self, batch):
        batch = super().preprocess_batch(batch)
        batch['img'] = batch['img'].contiguous(memory_format=torch.channels_last)
        return batch


def as_yolo(data: Path, out: Path, task: str, first: Sequence[int] | None) -> Path:
    """The training and validation sets of ``data`` in the original's format, or so many first images of each."""
    splits, outlines = {}, task in ('segment', 'obb')
    for split, number in zip(('train', 'val'), first or (None, None), strict=True):
        dataset = build_quietly(find_data(data).splits[split], outlines=outlines, pipeline=[], test_mode=True)
        dataset.full_init()
        out.mkdir(parents=True, exist_ok=True)
        file = out / f'{split}.json'
        content = annotations_of(dataset.metainfo).as_coco(outlines)
        content['images'] = content['images'][:number]
        chosen = {image['id'] for image in content['images']}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in chosen]
        file.write_text(json.dumps(content))
        splits[split] = (file, Path(dataset.data_prefix.get('img') or dataset.data_root))
    return original.yolo_dataset(out / 'set', splits, task)


def starting_model(weights: str, out: Path, task: str) -> torch.nn.Module:
    """The original's model with the tensors of a static checkpoint of mmdyn."""
    file = out / 'weights.safetensors'
    file.unlink(missing_ok=True)
    conversion = convert_to_original(weights, file)
    model = original.build('n', classes=conversion.variant.classes, task=task)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    return model


def score(arguments: argparse.Namespace, weights: Path, clip: bool) -> float:
    """COCO AP of a checkpoint of the original on the validation set, by tools/test.py."""
    converted = weights.with_suffix('.pth')
    if not converted.exists():
        subprocess.run([sys.executable, ROOT / 'tools/convert_ultralytics.py', weights, converted], check=True)
    out = weights.parent / f'{weights.stem}_{"clipped" if clip else "whole"}'
    config = ROOT / f'configs/{CONFIG[arguments.task]}.py'
    command = [ROOT / 'tools/test.py', config, converted, '--work-dir', out, '--data', arguments.data]
    options = ['--imgsz', str(arguments.imgsz), '--cfg-options', f'model.test_cfg.clip_boxes={clip}']
    options += [f'test_dataloader.dataset.indices={arguments.first[1]}'] if arguments.first else []
    subprocess.run([sys.executable, *command, *options], check=True)
    results = (json.loads(file.read_text()) for file in sorted(out.glob('*/*.json')))
    return next(found[METRIC[arguments.task]] for found in results if METRIC[arguments.task] in found)


def main() -> None:
    """Train, score, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='data set, as --data of the tools; all images need an image file')
    parser.add_argument('out', type=Path, help='folder of the runs and of original.csv')
    parser.add_argument('--task', choices=tuple(CONFIG), default='detect')
    parser.add_argument('--seeds', type=int, default=3, help='seeds 0 to N - 1 (3)')
    parser.add_argument('--epochs', type=int, default=60, help='epochs (60)')
    parser.add_argument('--imgsz', type=int, default=320, help='image size (320)')
    parser.add_argument('--optimizer', default='SGD', help="SGD as published, or auto, the package's own choice (SGD)")
    parser.add_argument(
        '--first', nargs=2, type=int, metavar=('N', 'M'), help='train on N and score on M images only, of one size'
    )
    parser.add_argument('--weights', help='static checkpoint of mmdyn to start from, of the same task')
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    arguments.data = arguments.data.resolve()
    yaml = out / 'set/data.yaml'
    if not yaml.exists():
        as_yolo(arguments.data, out, arguments.task, arguments.first)
    import ultralytics.engine.trainer  # after `original`, which sets the package's environment

    # The original's own context is for GPUs.
    ultralytics.engine.trainer.autocast = lambda enabled, device='cpu': torch.autocast('cpu', torch.bfloat16)
    trainer = HalfTrainer
    if arguments.weights:
        start = starting_model(arguments.weights, out, arguments.task)
        trainer = type('HalfTrainer', (HalfTrainer,), {'start': start})
    lines = [('seed', 'checkpoint', 'ap', 'ap_not_clipped')]
    for seed in range(arguments.seeds):
        run = out / f'seed_{seed}'
        if not (run / 'done').exists():
            settings = dict(imgsz=arguments.imgsz, epochs=arguments.epochs, batch=16, seed=seed)
            settings |= dict(optimizer=arguments.optimizer, **AUGMENT.get(arguments.task, {}))
            original.train(yaml, run, 'static', trainer, arguments.task, **settings)
            (run / 'done').touch()
        for name in ('last', 'best'):
            weights = run / f'weights/{name}.pt'
            lines.append((seed, name, *(f'{score(arguments, weights, clip):.3f}' for clip in (True, False))))
    with (out / 'original.csv').open('w', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows(lines)
    print(f'Wrote {out / "original.csv"}')


if __name__ == '__main__':
    main()
