"""One layer: DynamicConv, a static convolution and timm's CondConv2d, over shapes, batches, precisions and layouts."""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from _timing import benchmark_parser, caption, mean_ratio, peak_memory, prepare, pyplot, write_results

EXAMPLE = """  python benchmarks/conv_latency.py --short
  python benchmarks/conv_latency.py                 # the whole grid, 8 minutes on 2 cores"""

LARGEST_GMACS = 8.0  # of a static forward pass; larger cells are left out, and counted in the result


class Shape(NamedTuple):
    """A convolution, and the side of its square input map."""

    used_in: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    side: int

    def gmacs(self, batch: int) -> float:
        """Multiply-adds of a forward pass, in 1e9."""
        kernel = self.out_channels * self.in_channels // self.groups * self.kernel**2
        return batch * kernel * (self.side // self.stride) ** 2 / 1e9

    def __str__(self) -> str:
        groups = f' g{self.groups}' if self.groups > 1 else ''
        return f'{self.in_channels}->{self.out_channels} k{self.kernel} s{self.stride}{groups} @{self.side}'


# Channels of the stem and of stages 1 to 4; those of l are those of m.
YOLO11 = {
    'n': (16, 32, 64, 128, 256),
    's': (32, 64, 128, 256, 512),
    'm': (64, 128, 256, 512, 512),
    'x': (96, 192, 384, 768, 768),
}


def grid_shapes() -> list[Shape]:
    """The strided convolutions of YOLO11 n to x at 640 px, then other convolutions that a DynamicConv can replace."""
    shapes: dict[tuple[int, int, int], Shape] = {}
    for scale, (stem, c1, c2, c3, c4) in YOLO11.items():
        backbone = (stem, c1, 320), (c2, c2, 160), (c3, c3, 80), (c3, c4, 40)
        neck = (c2, c2, 80), (c3, c3, 40)
        for i, o, side in (*backbone, *neck):
            shapes.setdefault((i, o, side), Shape(f'YOLO11{scale}', i, o, 3, 2, 1, side))
    extra = [
        Shape('a block', 64, 64, 3, 1, 1, 40),
        Shape('a small map', 128, 128, 3, 1, 1, 10),
        Shape('pointwise', 128, 128, 1, 1, 1, 40),
        Shape('depthwise', 128, 128, 3, 1, 128, 40),
    ]
    return [*shapes.values(), *extra]


class Cell(NamedTuple):
    """One point of the grid."""

    shape: Shape
    batch: int
    dtype: str
    layout: str
    mode: str


def cells(short: bool) -> Iterator[Cell]:
    """The grid."""
    shapes = grid_shapes()
    batches, layouts = ((1, 8), ('nhwc',)) if short else ((1, 8, 16, 32), ('nchw', 'nhwc'))
    if short:
        shapes = [s for s in shapes if s.used_in in ('YOLO11n', 'pointwise')]
    for shape, batch, dtype, layout, mode in itertools.product(
        shapes, batches, ('float32', 'bfloat16'), layouts, ('inference', 'training')
    ):
        if shape.gmacs(batch) <= LARGEST_GMACS:
            yield Cell(shape, batch, dtype, layout, mode)


def alternatives(cell: Cell) -> dict[str, Callable[[], object]]:
    """Functions that run a cell: forward, or forward and backward with all gradients."""
    import torch
    from _peers import PublishedDynamicConv
    from torch import nn

    from mmdyn import DynamicConv

    shape, batch, dtype, layout, mode = cell
    memory_format = torch.channels_last if layout == 'nhwc' else torch.contiguous_format
    arguments = (shape.in_channels, shape.out_channels, shape.kernel, shape.stride, shape.kernel // 2)
    layers = {
        'static': nn.Conv2d(*arguments, groups=shape.groups, bias=False),
        'mmdyn': DynamicConv(*arguments, groups=shape.groups),
        'timm': PublishedDynamicConv(*arguments, groups=shape.groups),
    }
    x = torch.randn(batch, shape.in_channels, shape.side, shape.side, dtype=getattr(torch, dtype))
    x = x.contiguous(memory_format=memory_format).requires_grad_(mode == 'training')
    y = layers['static'].to(memory_format=memory_format)(x.detach().float())
    cotangent = torch.randn_like(y).to(x.dtype).contiguous(memory_format=memory_format)

    def forward(layer: nn.Module):
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
            return layer(x)

    def infer(layer: nn.Module) -> None:
        with torch.no_grad():
            forward(layer)

    def train(layer: nn.Module) -> None:
        forward(layer).backward(cotangent)
        x.grad = None
        layer.zero_grad()

    run = train if mode == 'training' else infer
    return {name: lambda layer=layer.to(memory_format=memory_format): run(layer) for name, layer in layers.items()}


def measure(cell: Cell, repeats: int) -> dict:
    """Times, ratios and memory of a cell."""
    from mmdyn.analysis.timing import interleaved

    calls = alternatives(cell)
    times = interleaved(calls, repeats)
    return {
        **cell._replace(shape=str(cell.shape))._asdict(),
        'used_in': cell.shape.used_in,
        'seconds': times,
        'peak_bytes': {name: peak_memory(call) for name, call in calls.items()},
    }


def ratio(row: dict, over: str, under: str) -> float:
    """Ratio of the medians of two alternatives."""
    return row['seconds'][over]['median'] / row['seconds'][under]['median']


def summarise(rows: list[dict]) -> dict:
    """The figures of the README."""
    slower = [row for row in rows if ratio(row, 'mmdyn', 'timm') > 1.03]
    return {
        'cells': len(rows),
        'timm_over_mmdyn_geometric_mean': mean_ratio([ratio(r, 'timm', 'mmdyn') for r in rows]),
        'timm_over_mmdyn_training': mean_ratio([ratio(r, 'timm', 'mmdyn') for r in rows if r['mode'] == 'training']),
        'timm_over_mmdyn_inference': mean_ratio([ratio(r, 'timm', 'mmdyn') for r in rows if r['mode'] == 'inference']),
        'mmdyn_over_static_geometric_mean': mean_ratio([ratio(r, 'mmdyn', 'static') for r in rows]),
        'cells_slower_than_timm_by_more_than_3_percent': [
            f'{r["shape"]} B{r["batch"]} {r["dtype"]} {r["layout"]} {r["mode"]}: {ratio(r, "mmdyn", "timm"):.3f}'
            for r in slower
        ],
    }


def plot(rows: list[dict]):
    """Every cell as a point: ratio to static of ours and of timm's."""
    panels = [(m, d) for m in ('inference', 'training') for d in ('float32', 'bfloat16')]
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 7.5), sharex=True, sharey=True)
    top = max(ratio(r, n, 'static') for r in rows for n in ('mmdyn', 'timm')) * 1.1
    for axis, (mode, dtype) in zip(axes.flat, panels, strict=True):
        for layout, colour in (('nhwc', 'tab:blue'), ('nchw', 'tab:orange')):
            chosen = [r for r in rows if (r['mode'], r['dtype'], r['layout']) == (mode, dtype, layout)]
            points = [(ratio(r, 'timm', 'static'), ratio(r, 'mmdyn', 'static')) for r in chosen]
            if points:
                label = {'nhwc': 'channels-last', 'nchw': 'plain layout'}[layout]
                axis.scatter(*zip(*points, strict=True), s=14, alpha=0.7, color=colour, label=label)
        axis.plot((0.7, top), (0.7, top), color='grey', linewidth=0.8)
        axis.set(xscale='log', yscale='log', xlim=(0.7, top), ylim=(0.7, top), title=f'{mode}, {dtype}')
        ticks = [t for t in (1, 1.5, 2, 3, 5, 8, 12, 20) if t <= top]
        axis.set_xticks(ticks, [f'{t:g}' for t in ticks])
        axis.set_yticks(ticks, [f'{t:g}' for t in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].legend(loc='upper left')
    figure.supxlabel("time of timm's CondConv2d / static convolution")
    figure.supylabel('time of DynamicConv / static convolution')
    figure.suptitle(f'A layer: below the line, DynamicConv is faster than CondConv2d\n{caption()}', fontsize=10)
    return figure


def main() -> None:
    """Measure, summarise, write."""
    args = benchmark_parser(__doc__, EXAMPLE).parse_args()
    from tqdm import tqdm

    prepare(args.threads)
    grid = list(cells(args.short))
    rows = [measure(cell, args.repeats) for cell in tqdm(grid, unit='cell', disable=None)]
    figures = summarise(rows)
    for name, value in figures.items():
        print(f'{name}: {value:.3f}' if isinstance(value, float) else f'{name}: {value}')
    content = {'summary': figures, 'largest_gmacs': LARGEST_GMACS, 'rows': rows}
    write_results(args, 'conv_latency', content, plot(rows))


if __name__ == '__main__':
    sys.exit(main())
