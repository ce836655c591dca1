"""Whole detectors: YOLO11 with DynamicConv, the static one, the published form, and the original package's YOLO11."""

import sys
from collections.abc import Callable
from typing import NamedTuple

from _timing import ROOT, benchmark_parser, caption, peak_memory, prepare, pyplot, write_results

EXAMPLE = """  python benchmarks/model_latency.py --short
  pip install -r requirements/parity.txt        # the original
  python benchmarks/model_latency.py            # more than 5 minutes on 2 cores
  python benchmarks/model_latency.py --only segment"""


class Case(NamedTuple):
    """One measurement, the same for every detector."""

    scale: str
    mode: str  # training: loss, backward, clipping and an SGD step; inference: raw outputs
    side: int
    batch: int
    dtype: str
    task: str = 'detect'

    def __str__(self) -> str:
        name = f'YOLO11{self.scale}' + ('' if self.task == 'detect' else f' {self.task}')
        return f'{name} {self.mode}, {self.side} px, batch {self.batch}, {self.dtype}'


class Detector(NamedTuple):
    """Kind and settings of a detector."""

    kind: str  # static, dynconv, published (timm's layer inside), original (the Ultralytics package), or of FAMILY
    layout: str
    folded: bool = False

    def __str__(self) -> str:
        return f'{self.kind} {self.layout}' + (' folded' if self.folded else '')


CASES = [
    Case('n', 'training', 640, 8, 'bfloat16'),
    Case('n', 'training', 640, 8, 'float32'),
    Case('n', 'inference', 640, 8, 'bfloat16'),
    Case('n', 'inference', 640, 8, 'float32'),
    Case('n', 'inference', 640, 1, 'bfloat16'),
    Case('n', 'inference', 640, 1, 'float32'),
    Case('n', 'training', 640, 4, 'float32', 'segment'),
    Case('n', 'training', 640, 4, 'float32', 'pose'),
    Case('m', 'training', 320, 4, 'bfloat16'),
    Case('m', 'inference', 320, 4, 'bfloat16'),
]
# Dynamic convolutions with batch norm and SiLU after them, by their conv_cfg.
FAMILY = {
    'dynconv-bn': dict(type='DynamicConv'),
    'mlp router': dict(type='DynamicConv', router=dict(type='mlp')),
    'normalised mlp router': dict(type='DynamicConv', router=dict(type='mlp', normalise=True)),
    'odconv, 1 expert': dict(type='ODConv', num_experts=1),
    'odconv, 4 experts': dict(type='ODConv', num_experts=4),
    'fdconv': dict(type='FDConv'),
}
MEMORY = [Case(scale, 'training', 640, 4, 'bfloat16') for scale in 'nx']
BOXES = 8  # per image


def detectors(case: Case, has_original: bool) -> list[Detector]:
    """The detectors to compare, in both layouts; the original where it is trained in float32, as it trains on a CPU."""
    with_original = has_original and case.mode == 'training' and case.dtype == 'float32'
    kinds = ['static', 'dynconv', 'published'] + ['original'] * with_original
    found = [Detector(kind, layout) for layout in ('nhwc', 'nchw') for kind in kinds]
    if case.mode == 'inference':
        found += [Detector(kind, layout, True) for layout in ('nhwc', 'nchw') for kind in ('static', 'dynconv')]
    return found


def build(detector: Detector, case: Case):
    """A detector with random weights and batch norm statistics of random images."""
    import torch
    from _peers import in_published_form, original_yolo11
    from mmengine.config import Config
    from torch import nn

    from mmdyn.layers import fold_batch_norms
    from mmdyn.models.build import build_model

    torch.manual_seed(0)
    if detector.kind == 'original':
        from ultralytics.cfg import get_cfg

        model = original_yolo11().build(case.scale, classes=classes_of(case), task=case.task)
        model.args = get_cfg()
    else:
        variant = '' if detector.kind == 'static' else '_dynconv'
        folder = '' if case.task == 'detect' else case.task
        cfg = Config.fromfile(ROOT / 'configs' / folder / f'yolo11{case.scale}{variant}_coco.py')
        if detector.kind in FAMILY:
            unit = dict(type='ConvModule', conv_cfg=FAMILY[detector.kind])
            cfg.model.backbone.downsample_cfg = cfg.model.neck.downsample_cfg = unit
        model = build_model(cfg)
        model.init_weights()
        model = in_published_form(model) if detector.kind == 'published' else model
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        images = torch.rand(2, 3, case.side, case.side)
        model.train()(images) if detector.kind == 'original' else model.train()(images, None, mode='tensor')
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(case.mode == 'training')
    if detector.folded:
        model = fold_batch_norms(model)
    return model.to(memory_format=torch.channels_last) if detector.layout == 'nhwc' else model


def classes_of(case: Case) -> int:
    """Poses are of people only."""
    return 1 if case.task == 'pose' else 80


def call(detector: Detector, case: Case) -> Callable[[], object]:
    """The function that is timed."""
    import torch

    model = build(detector, case)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.side, case.side, generator=generator)
    if detector.layout == 'nhwc':
        images = images.contiguous(memory_format=torch.channels_last)
    autocast = dict(device_type='cpu', dtype=torch.bfloat16, enabled=case.dtype == 'bfloat16')
    if case.mode == 'inference':

        def infer() -> None:
            with torch.no_grad(), torch.autocast(**autocast):
                model(images, None, mode='tensor')

        return infer

    fused = detector.kind != 'original'  # as in the configs, and as in the original
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.937, nesterov=True, fused=fused)
    losses = losses_of(detector, model, case, generator)

    def train() -> None:
        with torch.autocast(**autocast):
            loss = losses(images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    return train


def losses_of(detector: Detector, model, case: Case, generator) -> Callable:
    """The sum of a detector's own losses on the same boxes."""
    import torch

    count = case.batch * BOXES
    index = torch.arange(case.batch).repeat_interleave(BOXES)[:, None].float()
    labels = torch.randint(classes_of(case), (count, 1), generator=generator).float()
    corner = torch.rand(count, 2, generator=generator) * 0.7
    sides = torch.rand(count, 2, generator=generator) * 0.25 + 0.02
    extras = {}
    if case.task == 'segment':  # a quarter of the size, objects counted from 1, those that come later on top
        planes = torch.zeros(case.batch, case.side // 4, case.side // 4, dtype=torch.int32)
        for i, (left, top, right, bottom) in enumerate((torch.cat([corner, corner + sides], 1) * len(planes[0])).int()):
            planes[i // BOXES, top:bottom, left:right] = i % BOXES + 1
        extras['masks'] = planes
    points = corner[:, None] + torch.rand(count, 17, 2, generator=generator) * sides[:, None]
    seen = torch.ones(count, 17) * 2
    if detector.kind == 'original':
        boxes = torch.cat([corner + sides / 2, sides], 1)
        batch = dict(batch_idx=index[:, 0], cls=labels, bboxes=boxes)
        if case.task == 'segment':
            model.args.overlap_mask = True
        elif case.task == 'pose':
            batch['keypoints'] = torch.cat([points, seen[..., None]], 2)
        return lambda images: model(dict(batch | extras, img=images))[0].sum()
    if case.task == 'pose':
        extras.update(keypoints=points * case.side, keypoints_visible=seen)
    targets = torch.cat([index, labels, corner * case.side, (corner + sides) * case.side], 1)
    metas = [dict(batch_input_shape=(case.side, case.side))] * case.batch
    samples = dict(bboxes_labels=targets, counts=(BOXES,) * case.batch, img_metas=metas, **extras)
    return lambda images: sum(loss.sum() for loss in model(images, dict(samples), mode='loss').values())


def measure(case: Case, repeats: int, has_original: bool) -> dict:
    """Times of a case."""
    from mmdyn.analysis.timing import interleaved

    calls = {str(d): call(d, case) for d in detectors(case, has_original)}
    times = interleaved(calls, repeats)
    rates = {name: case.batch / t['median'] for name, t in times.items()}
    return {**case._asdict(), 'name': str(case), 'seconds': times, 'images_per_second': rates}


def measure_memory(case: Case) -> dict:
    """Peak memory of a training step, including gradients, without parameters and momentum."""
    rows = {}
    for kind in ('static', 'dynconv', 'published'):
        detector = Detector(kind, 'nhwc')
        parameters = sum(p.numel() for p in build(detector, case).parameters())
        rows[kind] = {'peak_bytes': peak_memory(call(detector, case)), 'parameters': parameters}
    return {**case._asdict(), 'name': str(case), 'detectors': rows}


def summarise(rows: list[dict], memory: list[dict]) -> list[dict]:
    """The ratios that have a target, with each detector in its fastest layout."""

    def best(row: dict, kind: str, folded: bool = False, layout: str = '') -> float:
        names = [n for n in row['seconds'] if n.startswith(f'{kind} {layout}') and n.endswith(' folded') == folded]
        return min(row['seconds'][name]['median'] for name in names)

    found = []
    for row in rows:
        for kind in ('dynconv', 'published'):
            found.append({'what': f'{kind} / static: {row["name"]}', 'ratio': best(row, kind) / best(row, 'static')})
        if row['mode'] == 'inference':
            ratio = best(row, 'dynconv', folded=True) / best(row, 'static', folded=True)
            found.append({'what': f'dynconv / static, both folded: {row["name"]}', 'ratio': ratio})
        if any(name.startswith('original') for name in row['seconds']):
            ratio = best(row, 'static') / best(row, 'original', layout='nchw')
            found.append({'what': f'our static / the original as it ships: {row["name"]}', 'ratio': ratio})
            ratio = best(row, 'static') / best(row, 'original')
            found.append({'what': f'our static / the original in its best layout: {row["name"]}', 'ratio': ratio})
    halves = [row for row in rows if row['mode'] == 'training' and row['dtype'] == 'bfloat16']
    for half in halves:
        for row in rows:
            same = all(row[key] == half[key] for key in ('scale', 'mode', 'side', 'batch'))
            if row is not half and same and any(name.startswith('original') for name in row['seconds']):
                ratio = best(half, 'static') / best(row, 'original', layout='nchw')
                found.append(
                    {'what': f'our static in bfloat16 / the original in float32: {row["name"]}', 'ratio': ratio}
                )
    for row in memory:
        for kind in ('dynconv', 'published'):
            ratio = row['detectors'][kind]['peak_bytes'] / row['detectors']['static']['peak_bytes']
            found.append({'what': f'peak memory of a step, {kind} / static: {row["name"]}', 'ratio': ratio})
    return found


def plot(rows: list[dict]):
    """Images per second, one group of bars per case."""
    colours = {'static': 'tab:grey', 'dynconv': 'tab:blue', 'published': 'tab:orange', 'original': 'tab:green'}
    labels = {
        'static': 'static, ours',
        'dynconv': 'DynamicConv, ours',
        'published': "DynamicConv, timm's CondConv2d",
        'original': 'static, Ultralytics',
    }
    figure, axes = pyplot().subplots(
        (len(rows) + 1) // 2, 2, figsize=(11, 1.9 * ((len(rows) + 1) // 2) + 1), squeeze=False
    )
    for axis, row in zip(axes.flat, rows, strict=False):
        names = [n for n in row['images_per_second'] if not n.endswith('folded')]
        kinds = [k for k in colours if any(n.startswith(k) for n in names)]
        fastest = [max((n for n in names if n.startswith(k)), key=row['images_per_second'].get) for k in kinds]
        values = [row['images_per_second'][n] for n in fastest]
        axis.barh(kinds, values, color=[colours[k] for k in kinds])
        for y, (value, name) in enumerate(zip(values, fastest, strict=True)):
            axis.text(value, y, f' {value:.1f}  ({value / values[0]:.2f}, {name.split()[1]})', va='center', fontsize=8)
        axis.set_xlim(0, max(values) * 1.6)
        axis.set_yticks(range(len(kinds)), [labels[k] for k in kinds], fontsize=8)
        axis.invert_yaxis()
        axis.set_title(row['name'], fontsize=9)
    for axis in axes.flat[len(rows) :]:
        axis.axis('off')
    figure.suptitle(f'Images per second (in brackets: over static; layout)\n{caption()}', fontsize=10)
    return figure


def main() -> None:
    """Measure, summarise, write."""
    parser = benchmark_parser(__doc__, EXAMPLE)
    parser.add_argument('--only', metavar='TEXT', help='measure the cases with this in their names only, and print')
    args = parser.parse_args()
    from _peers import original_yolo11
    from tqdm import tqdm

    prepare(args.threads)
    has_original = original_yolo11() is not None
    if not has_original:
        print('the original is not installed: pip install -r requirements/parity.txt to compare with it')
    repeats = min(3, args.repeats) if args.short else args.repeats
    cases, memory_cases = CASES, MEMORY[: 1 if args.short else None]
    if args.only:
        cases, memory_cases = [case for case in CASES if args.only in str(case)], []
    rows = [measure(case, repeats, has_original) for case in tqdm(cases, unit='case', disable=None)]
    memory = [measure_memory(case) for case in tqdm(memory_cases, unit='case', disable=None)]
    figures = summarise(rows, memory)
    for figure in figures:
        print(f'{figure["ratio"]:.3f}  {figure["what"]}')
    if args.only:
        return
    content = {'summary': figures, 'rows': rows, 'memory': memory}
    write_results(args, 'model_latency', content, plot(rows))


if __name__ == '__main__':
    sys.exit(main())
