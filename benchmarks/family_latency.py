"""The family of dynamic convolutions in YOLO11-n: time of routers, ODConv and FDConv over DynamicConv's, and static."""

import sys

from _timing import benchmark_parser, caption, prepare, pyplot, write_results
from model_latency import FAMILY, Case, Detector, call

EXAMPLE = """  python benchmarks/family_latency.py --short"""
CASES = [
    Case('n', 'training', 640, 8, 'bfloat16'),
    Case('n', 'training', 640, 8, 'float32'),
    Case('n', 'inference', 640, 8, 'bfloat16'),
    Case('n', 'inference', 640, 1, 'float32'),
]
REFERENCE = 'dynconv-bn'


def measure(case: Case, repeats: int) -> dict:
    """Times of a case, channels-last, measured in turn."""
    from mmdyn.analysis.timing import interleaved

    calls = {kind: call(Detector(kind, 'nhwc'), case) for kind in ('static', *FAMILY)}
    times = interleaved(calls, repeats)
    ratios = {kind: t['median'] / times[REFERENCE]['median'] for kind, t in times.items()}
    return {**case._asdict(), 'name': str(case), 'seconds': times, 'ratios': ratios}


def plot(rows: list[dict]):
    """The ratios, one group of bars per case."""
    figure, axes = pyplot().subplots(1, len(rows), figsize=(3.4 * len(rows), 3), sharey=True, squeeze=False)
    for axis, row in zip(axes.flat, rows, strict=True):
        names, values = list(row['ratios']), list(row['ratios'].values())
        axis.barh(names, values, color=['tab:grey'] + ['tab:blue'] * len(FAMILY))
        for y, value in enumerate(values):
            axis.text(value, y, f' {value:.2f}', va='center', fontsize=8)
        axis.set_xlim(0, max(values) * 1.25)
        axis.set_title(row['name'].removeprefix('YOLO11n '), fontsize=9)
    axes.flat[0].invert_yaxis()
    figure.suptitle(f'YOLO11n: time over that with {REFERENCE}\n{caption()}', fontsize=10)
    return figure


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, EXAMPLE)
    parser.add_argument('--only', metavar='TEXT', help='measure the cases with this in their names only, and print')
    args = parser.parse_args()
    from tqdm import tqdm

    prepare(args.threads)
    repeats = min(3, args.repeats) if args.short else args.repeats
    cases = [case for case in CASES if (args.only or '') in str(case)]
    rows = [measure(case, repeats) for case in tqdm(cases, unit='case', disable=None)]
    for row in rows:
        for kind, ratio in row['ratios'].items():
            print(f'{ratio:.3f}  {kind}: {row["name"]}')
    if not args.only:
        write_results(args, 'family_latency', {'rows': rows}, plot(rows))


if __name__ == '__main__':
    sys.exit(main())
