"""Code shared by the benchmarks: the command line, peak memory, the machine, the result file."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import geometric_mean

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
sys.path.insert(0, str(ROOT))

PACKAGES = ('torch', 'torchvision', 'timm', 'mmengine', 'mmcv-lite', 'mmdet', 'mmyolo', 'ultralytics', 'numpy', 'mmdyn')
PACKAGES += ('onnxruntime', 'openvino')

os.environ.setdefault('KINETO_LOG_LEVEL', '5')  # otherwise the profiler logs every start and stop to stderr


def benchmark_parser(doc: str, example: str) -> argparse.ArgumentParser:
    """A parser with the common arguments of the benchmarks."""
    parser = argparse.ArgumentParser(
        description=doc, epilog=f'example:\n{example}', formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--short', action='store_true', help='a smaller grid or fewer rounds, in minutes')
    parser.add_argument('--repeats', type=int, default=7, help='timings of each alternative (7)')
    parser.add_argument('--threads', type=int, help='number of threads (number of cores)')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder for the results (benchmarks/results)')
    return parser


def prepare(threads: int | None) -> None:
    """Set up the process like ``tools/train.py`` on a CPU: freed memory is kept, all cores are used."""
    import logging
    import warnings

    import torch

    from mmdyn.host import keep_freed_memory

    logging.disable(logging.INFO)  # MMEngine logs every initialised parameter
    warnings.filterwarnings('ignore', 'torch.meshgrid')
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)


def peak_memory(call: Callable[[], object]) -> int:
    """Peak memory of tensors during a call minus the memory before it, in bytes, by PyTorch's profiler."""
    from torch.profiler import profile

    call()  # allocates persistent tensors, such as momentum, before the measurement
    with profile(profile_memory=True) as recorded:
        call()
    held = highest = 0
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == '[memory]']
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def machine() -> dict:
    """The machine and the versions that a result depends on."""
    import torch

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return {
        'cpu': names[0] if names else platform.processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'system': platform.platform(),
        'python': platform.python_version(),
        'packages': {package: installed(package) for package in PACKAGES},
        'date': time.strftime('%Y-%m-%d'),
    }


def pyplot():
    """Matplotlib without a window."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    return plt


def write_results(args: argparse.Namespace, stem: str, content: dict, figure) -> None:
    """Write the results and their figure to the output folder."""
    path = args.out / (f'{stem}_short' if args.short else stem)
    write_json(path.with_suffix('.json'), content)
    figure.tight_layout()
    figure.savefig(path.with_suffix('.png'), dpi=110)
    print(f'wrote {path.with_suffix(".png")}')


def caption() -> str:
    """One line about the machine, for plots."""
    m = machine()
    packages = m['packages']
    return f'{m["cpu"]}, {m["threads"]} threads, torch {packages["torch"]}, mmdyn {packages["mmdyn"]}, {m["date"]}'


def write_json(path: Path, content: dict) -> None:
    """Write a result and its machine atomically."""
    from mmdyn.files import write_text

    write_text(path, json.dumps({'machine': machine(), **content}, indent=1) + '\n')
    print(f'wrote {path}')


def mean_ratio(ratios: list[float]) -> float:
    """Geometric mean."""
    return geometric_mean(ratios) if ratios else float('nan')
