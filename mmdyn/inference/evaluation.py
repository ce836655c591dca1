"""Evaluation: average precision of a checkpoint or an exported file, by the config's own evaluator."""

import copy
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from mmdyn.checkpoints import EXPORTED, check_checkpoint
from mmdyn.running.launch import build_runner
from mmdyn.running.testing import enable_fuse, use_pipeline_sizes
from mmdyn.tasks import TASKS

from .exported_detector import use_exported


def evaluate(cfg: Config, path: str | Path, fuse: bool = False, square: bool = False) -> dict[str, float]:
    """Test on the config's test set.

    Args:
        cfg: Config; not modified.
        path: Checkpoint or other weights, or exported file.
        fuse: Fold batch norms first; for checkpoints.
        square: Pad images to squares, as for an exported file, even if the config has rectangles.

    Returns:
        The evaluator's figures by name.

    Raises:
        UserError: The file does not load or does not fit the config.
    """
    if Path(path).suffix not in EXPORTED.values():
        cfg = copy.deepcopy(cfg)
        check_checkpoint(str(path))
        cfg.load_from, cfg.resume = str(path), False
        if square:
            use_pipeline_sizes(cfg)
        if fuse:
            enable_fuse(cfg)
    else:
        cfg = use_exported(cfg, path)
    cfg.setdefault('work_dir', 'work_dirs/evaluation')
    return build_runner(cfg, train=False).test()


def ap_table(rows: Mapping[str, Mapping[str, float]], task: str = 'detect') -> str:
    """Metrics of several tests as a Markdown table.

    Args:
        rows: Metrics by name of the test.
        task: Name of the task, which selects the columns.
    """
    metrics = TASKS[task].metrics
    lines = [f'| | {" | ".join(metrics)} |', '|---' * (len(metrics) + 1) + '|']
    for name, figures in rows.items():
        lines.append(' | '.join([f'| {name}', *(f'{figures[key]:.3f}' for key in metrics.values())]) + ' |')
    return '\n'.join(lines)
