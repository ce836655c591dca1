"""A detector in every format: written, compared with PyTorch, timed and tested, as one table."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from tqdm import tqdm

from mmdyn.analysis.timing import interleaved
from mmdyn.checkpoints import EXPORTED
from mmdyn.errors import UserError
from mmdyn.inference.evaluation import evaluate
from mmdyn.inference.runtimes import RUNTIMES, open_exported
from mmdyn.layers import dynamic_layers, fold_batch_norms
from mmdyn.layers.export_forms import FORMS, ExportForm
from mmdyn.logs import quiet
from mmdyn.running.image_size import test_size
from mmdyn.running.loading import load_checkpoint_model
from mmdyn.tasks import TASKS, task_of

from .agreement import examples
from .export import export_detector
from .graph import plain_graph
from .options import FORMATS, ExportOptions

PYTORCH = 'PyTorch'
HEADINGS = ('format', 'form', 'result', 'MB', 'ms', 'AP', 'boxes', 'scores')


class Row(NamedTuple):
    """A format, and what became of the detector in it."""

    format: str
    form: str  # 'static', or the export form of dynamic convolutions
    result: str  # 'run', 'converted' (it does not run on this system), or 'refused' and why
    path: Path | None = None
    size: int = 0  # bytes
    seconds: float | None = None  # for an image, in batches of the export
    ap: float | None = None
    boxes: float | None = None  # largest difference to PyTorch in pixels
    scores: float | None = None

    def cells(self) -> list[str]:
        """The row as text."""
        values = (
            (self.size / 1e6 if self.size else None, '.1f'),
            (None if self.seconds is None else self.seconds * 1e3, '.1f'),
            (self.ap, '.3f'),
            (self.boxes, '.1g'),
            (self.scores, '.1g'),
        )
        texts = ['' if value is None or value != value else f'{value:{form}}' for value, form in values]
        return [self.format, self.form, self.result, *texts]

    def as_json(self) -> dict[str, Any]:
        """The row for machines; NaN is null."""
        values = self._asdict() | dict(path=str(self.path or ''))
        return {key: None if value != value else value for key, value in values.items()}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table.

    Example:
        >>> print(table([Row('onnx', 'static', 'run', None, 10_600_000, 0.0125, 0.458, 2e-5, 1e-7)]))
        | format | form | result | MB | ms | AP | boxes | scores |
        |---|---|---|---|---|---|---|---|
        | onnx | static | run | 10.6 | 12.5 | 0.458 | 2e-05 | 1e-07 |
    """
    lines = [f'| {" | ".join(HEADINGS)} |', '|---' * len(HEADINGS) + '|']
    return '\n'.join([*lines, *(f'| {" | ".join(row.cells())} |' for row in rows)])


def benchmark(
    cfg: Config,
    checkpoint: str | Path,
    folder: str | Path,
    formats: Sequence[str] | None = None,
    all_forms: bool = False,
    options: ExportOptions | None = None,
    test: bool = True,
    threads: int | None = None,
    repeats: int = 20,
) -> list[Row]:
    """Export a detector to formats, and compare the files with PyTorch.

    Args:
        cfg: Config of the detector.
        checkpoint: Its checkpoint.
        folder: Folder for the files.
        formats: Formats; None takes all whose packages are installed.
        all_forms: Every export form of a dynamic detector, not only the default one of the format.
        options: Options for all formats; its format and form are not used. The default is one image.
        test: Also test AP on the test set of the config.
        threads: Threads of PyTorch and of the runtimes; None takes their defaults.
        repeats: Rounds of the timing, in which all files take turns.

    Returns:
        A row for PyTorch, then one for each format and form.

    Raises:
        UserError: There is no such format, the checkpoint does not load, or the data set is missing.
    """
    unknown = [name for name in formats or () if name not in FORMATS]
    if unknown:
        raise UserError(f'there is no format {unknown[0]!r}: set {", ".join(FORMATS)}')
    common = options or ExportOptions(batch=1)
    batch = common.batch or 1
    model = load_checkpoint_model(cfg, checkpoint).model
    metric = next(iter(TASKS[task_of(model).name].metrics.values()))
    ap = _tested(cfg, checkpoint, metric) if test else None
    rows = [Row(PYTORCH, _kind(model), 'run', size=Path(checkpoint).stat().st_size, ap=ap)]
    wanted = list(_wanted(model, formats, all_forms))
    for name, form in tqdm(wanted, desc='exporting', unit='file'):
        target = Path(folder, name if form is None else f'{name}_{form}', Path(checkpoint).stem).with_suffix(
            EXPORTED[name]
        )
        try:
            with quiet():
                done = export_detector(cfg, checkpoint, target, common._replace(format=name, form=form, batch=batch))
        except UserError as e:
            rows.append(Row(name, form or _kind(model), f'refused: {_one_line(e)}'))
            continue
        except Exception as e:  # of a converter; the other formats go on
            rows.append(Row(name, form or _kind(model), f'failed: {type(e).__name__}: {_one_line(e)}'))
            continue
        result = 'run' if done.compared else 'converted'
        row = Row(name, done.form or 'static', result, done.path, done.size, boxes=done.boxes, scores=done.scores)
        tests = test and done.compared and done.path.suffix in RUNTIMES
        rows.append(row._replace(ap=_tested(cfg, done.path, metric) if tests else None))
    return _timed(rows, model, examples(model, test_size(cfg), batch), threads, repeats)


def _kind(model: torch.nn.Module) -> str:
    return 'dynamic' if dynamic_layers(model) else 'static'


def _wanted(
    model: torch.nn.Module, formats: Sequence[str] | None, all_forms: bool
) -> Iterator[tuple[str, ExportForm | None]]:
    from importlib.util import find_spec

    for name in formats or [n for n, f in FORMATS.items() if all(find_spec(package) for package in f.packages)]:
        if all_forms and dynamic_layers(model):
            yield from ((name, form) for form in FORMS)
        else:
            yield name, None


def _tested(cfg: Config, path: str | Path, metric: str) -> float:
    with quiet():
        return evaluate(cfg, path, square=True)[metric]


def _one_line(error: Exception) -> str:
    """A message that fits a cell of a table."""
    return ' '.join(str(error).split())[:300].replace('|', '/')


@torch.no_grad()
def _timed(
    rows: list[Row], model: torch.nn.Module, images: torch.Tensor, threads: int | None, repeats: int
) -> list[Row]:
    """The rows with seconds for an image: all files take turns in one process."""
    graph = plain_graph(fold_batch_norms(model.eval()))
    calls: dict[int, Callable[[], object]] = {0: partial(graph, images)}
    for i, row in enumerate(rows):
        if row.path is not None and row.result == 'run':
            calls[i] = partial(open_exported(row.path, threads).run, images.numpy())
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        times = interleaved({str(i): call for i, call in calls.items()}, repeats)
    finally:
        torch.set_num_threads(before)
    return [
        row._replace(seconds=times[str(i)]['median'] / len(images)) if i in calls else row for i, row in enumerate(rows)
    ]
