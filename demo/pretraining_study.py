"""Does pretraining by classification help a dynamic detector more than a static one?

For every seed a static and a dynamic classifier learn crops of digits. Detectors of digits then start from nothing or
from these backbones, on 10, 30 and 100 % of the training images, which the seed draws, for as many iterations each.
The gain of pretraining is the difference of AP by seed, and what it does for the dynamic detector beyond the static one
is the difference of the two gains. Its three p-values are corrected by Holm's method. A run of a seed has its own
pretraining, images, initial weights and order, so the intervals are over all of these. Finished runs are skipped, also
those of runs.csv in the folder of the report, so that another machine can go on. It needs requirements/classify.txt.
"""

import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import ROOT, run_tool, tool_parser

EXAMPLE = """  python demo/pretraining_study.py work_dirs/study_pretraining
  python demo/pretraining_study.py work_dirs/study_pretraining --report-only --report-dir docs/study/pretraining"""
VARIANTS = {'static': '', 'dynamic': '_dynconv-bn'}
STARTS = ('nothing', 'pretrained')
CLASSIFIER_EPOCHS = 8  # of 250 iterations of 32 crops
SHARES = {80: 60, 240: 20, 800: 6}  # images and epochs: 600 iterations of 8 images each
BEYOND = 'dynamic beyond static'


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('work_dir', type=Path, help='folder of all runs')
    parser.add_argument('--seeds', type=int, default=6, help='seeds (6)')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time, each in one thread (2)')
    parser.add_argument('--report-only', action='store_true', help='train nothing, report the finished runs')
    parser.add_argument('--report-dir', type=Path, help='folder of the report (the work dir)')
    return parser


class Arm(NamedTuple):
    """A detector of one seed."""

    images: int
    variant: str
    start: str
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f'{self.images}_{self.variant}_{self.start}/seed_{self.seed}'


def train(name: str, folder: Path, epochs: int, seed: int, side: int, *options) -> Path:
    """Train a config on images of a side where it is not done; the checkpoint of the last epoch."""
    last = folder / f'epoch_{epochs}.pth'
    if not last.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [ROOT / 'tools/train.py', name, '--work-dir', folder, '--epochs', epochs]
        command += ['--seed', seed, '--imgsz', side]
        loaders = [f'{split}_dataloader.num_workers=1' for split in ('train', 'val')]
        command += ['--amp', '--resume', '--cfg-options', f'train_cfg.val_interval={epochs}', *loaders]
        command += ['default_hooks.checkpoint.max_keep_ckpts=1', *options]
        with (folder / 'train.log').open('a') as log:
            environment = os.environ | {'OMP_NUM_THREADS': '1'}
            texts = [sys.executable, *map(str, command)]
            subprocess.run(texts, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)
    return last


def pretrain(variant: str, seed: int, work_dir: Path) -> Path:
    """The checkpoint of a classifier."""
    folder = work_dir / f'classify_{variant}/seed_{seed}'
    return train(f'classify/yolo11n{VARIANTS[variant]}_digits', folder, CLASSIFIER_EPOCHS, seed, 64)


def detect(arm: Arm, work_dir: Path) -> None:
    """Train a detector on images that the seed draws."""
    import numpy as np

    chosen = np.sort(np.random.default_rng(arm.seed).permutation(800)[: arm.images]).tolist()
    epochs = SHARES[arm.images]
    options = [f'train_dataloader.dataset.indices={str(chosen).replace(" ", "")}']
    options += [f'custom_hooks.1.num_last_epochs={epochs // 2}']  # mosaics in the first half
    if arm.start == 'pretrained':
        backbone = pretrain(arm.variant, arm.seed, work_dir)
        options += ['model.backbone.init_cfg.type=BackboneOf', f'model.backbone.init_cfg.checkpoint={backbone}']
    name = f'yolo11n{VARIANTS[arm.variant]}_digits'
    train(name, work_dir / arm.name, epochs, arm.seed, 256, *options)


def run_all(arms: list[Arm], args) -> None:
    """Pretrain what the detectors need, then train them, with a progress bar."""
    from tqdm import tqdm

    with ThreadPoolExecutor(args.jobs) as pool:
        classifiers = sorted({(arm.seed, arm.variant) for arm in arms if arm.start == 'pretrained'})
        started = [pool.submit(pretrain, variant, seed, args.work_dir) for seed, variant in classifiers]
        for each in tqdm(as_completed(started), desc='classifiers', unit='run', total=len(started)):
            each.result()
        started = [pool.submit(detect, arm, args.work_dir) for arm in arms]
        for each in tqdm(as_completed(started), desc='detectors', unit='run', total=len(started)):
            each.result()


def recorded_scores(path: Path) -> dict[Arm, float]:
    """AP of the runs that a file of an earlier report has.

    Raises:
        UserError: It is another file.
    """
    from mmdyn.errors import UserError

    if not path.is_file():
        return {}
    try:
        with path.open(newline='') as file:
            return {
                Arm(int(row['images']), row['variant'], row['start'], int(row['seed'])): float(row['ap'])
                for row in csv.DictReader(file)
            }
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f'{path} has no runs of this study: {type(e).__name__} {e}. Move it away') from e


def score_of(arm: Arm, work_dir: Path) -> float | None:
    """AP of the last epoch; None of a run that is not done."""
    from mmdyn.logs import log_records

    found = [record for record in log_records(work_dir / arm.name) if record.get('step') == SHARES[arm.images]]
    return next((record['coco/bbox_mAP'] for record in found if 'coco/bbox_mAP' in record), None)


def gains(scores: dict[Arm, float], images: int) -> dict[str, dict[int, float]]:
    """What pretraining adds to AP by seed: to the static detector, to the dynamic one, and to that beyond the other.

    Args:
        scores: AP of the runs that are done.
        images: Of the training set.
    """
    found: dict[str, dict[int, float]] = {variant: {} for variant in VARIANTS}
    for (count, variant, start, seed), score in scores.items():
        before = scores.get(Arm(images, variant, 'nothing', seed))
        if count == images and start == 'pretrained' and before is not None:
            found[variant][seed] = score - before
    both = sorted(found['static'].keys() & found['dynamic'].keys())
    return found | {BEYOND: {seed: found['dynamic'][seed] - found['static'][seed] for seed in both}}


def holm(p: list[float]) -> list[float]:
    """P-values that are corrected for their number, https://www.jstor.org/stable/4615733."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def summary(scores: dict[Arm, float]) -> list[dict]:
    """Rows of the table, one for each gain: mean AP of both starts, and the gain with its interval, by paired seeds."""
    from statistics import mean

    from scipy import stats

    from mmdyn.ablation.comparison import paired_difference

    rows = []
    for images in SHARES:
        for name, values in gains(scores, images).items():
            if len(values) < 2:
                continue
            found = paired_difference(values, dict.fromkeys(values, 0.0))
            row = dict(images=images, gain=name, seeds=len(values), mean=found.mean, low=found.low, high=found.high)
            starts = {} if name == BEYOND else {s: [scores[Arm(images, name, s, k)] for k in values] for s in STARTS}
            row |= {start: mean(values) for start, values in starts.items()}
            row['p'] = float(stats.ttest_1samp([*values.values()], 0.0).pvalue)
            rows.append(row)
    beyond = [row for row in rows if row['gain'] == BEYOND]
    for row, p in zip(beyond, holm([row['p'] for row in beyond]), strict=True):
        row['p_corrected'] = p
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Gains with their intervals by the number of images."""
    import matplotlib

    from mmdyn.analysis.pictures import figure_image
    from mmdyn.files import write_image

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.4), dpi=120, constrained_layout=True)
    for i, (name, colour) in enumerate(zip((*VARIANTS, BEYOND), ('#000000', '#0072b2', '#d55e00'), strict=True)):
        chosen = [row for row in rows if row['gain'] == name]
        places = [list(SHARES).index(row['images']) + 0.18 * (i - 1) for row in chosen]
        reach = [[row['mean'] - row['low'] for row in chosen], [row['high'] - row['mean'] for row in chosen]]
        means = [row['mean'] for row in chosen]
        axis.errorbar(places, means, reach, fmt='o', color=colour, capsize=3, label=name)
    axis.axhline(0, color='0.5', linewidth=0.8)
    axis.set_xticks(range(len(SHARES)), [f'{images} images' for images in SHARES])
    axis.set(ylabel='gain in AP, 95 % interval', xlabel='training set; 600 iterations each')
    axis.grid(axis='y', alpha=0.3)
    figure.legend(loc='outside upper center', ncols=3, frameon=False)
    write_image(path, figure_image(figure))


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    headings = 'images, gain of pretraining, AP from nothing, pretrained, gain (95 % interval), seeds, p (corrected)'
    lines = [f'| {headings.replace(", ", " | ")} |', '|---' * 7 + '|']
    for row in rows:
        starts = ' | '.join(f'{row[start]:.3f}' if start in row else '' for start in STARTS)
        gain = f'{row["mean"]:+.3f} ({row["low"]:+.3f} to {row["high"]:+.3f})'
        p = f'{row["p_corrected"]:.3f}' if 'p_corrected' in row else ''
        lines.append(f'| {row["images"]} | {row["gain"]} | {starts} | {gain} | {row["seeds"]} | {p} |')
    return '\n'.join(lines)


def study(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.files import csv_text, write_text

    args.work_dir = args.work_dir.absolute()
    out = args.report_dir or args.work_dir
    arms = [Arm(*each, seed) for seed in range(args.seeds) for each in product(SHARES, VARIANTS, STARTS)]
    scores = recorded_scores(out / 'runs.csv')
    if not args.report_only:
        try:
            run_all([arm for arm in arms if arm not in scores], args)
        except subprocess.CalledProcessError as e:
            raise UserError(f'a run failed: see train.log in {e.cmd[e.cmd.index("--work-dir") + 1]}') from e
    scores |= {arm: score for arm in arms if (score := score_of(arm, args.work_dir)) is not None}
    write_text(out / 'runs.csv', csv_text((*Arm._fields, 'ap'), [(*arm, ap) for arm, ap in scores.items()]))
    rows = summary({arm: ap for arm, ap in scores.items() if arm.seed < args.seeds})
    done = len(scores.keys() & set(arms))
    if not rows:
        raise UserError(f'{done} of {len(arms)} runs in {args.work_dir} are done, and no gain of two seeds')
    header = ('images', 'gain', 'seeds', 'mean', 'low', 'high', *STARTS, 'p', 'p_corrected')
    values = [[round(v, 4) if isinstance(v := row.get(key, ''), float) else v for key in header] for row in rows]
    write_text(out / 'gains.csv', csv_text(header, values))
    draw(rows, out / 'gains.png')
    print(f'{table(rows)}\n\n{done} of {len(arms)} runs are done. Wrote {out / "gains.csv"} and gains.png')


if __name__ == '__main__':
    sys.exit(run_tool(study, make_parser()))
