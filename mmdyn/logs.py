"""Logs: the records that the runs of a work dir wrote through MMEngine's visualizer; silence where none are wanted."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path


def log_records(work_dir: str | Path, last_only: bool = False) -> Iterator[dict]:
    """Every record that the runs of a work dir logged, the oldest first.

    Args:
        work_dir: Folder of the runs; each has its own subfolder.
        last_only: Only those of the last run.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    for log in logs[-1:] if last_only else logs:
        for line in log.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the last line of a process that was killed
                continue


# Figures by which a validation is judged, from 0 to 1, that of a task before that of its boxes, and a second figure.
METRICS = {
    **{f'coco/{kind}_mAP': f'coco/{kind}_mAP_50' for kind in ('segm', 'keypoints', 'oriented', 'bbox')},
    'accuracy/top1': 'accuracy/top5',
}


def metric_of(record: dict) -> str | None:
    """The key of the figure by which a validation is judged; None if the record has none.

    Example:
        >>> metric_of({'coco/bbox_mAP': 0.5, 'coco/segm_mAP': 0.4})
        'coco/segm_mAP'
    """
    return next((key for key in METRICS if key in record), None)


def figure_name(keys: Iterable[str]) -> str:
    """What the figures of a validation are, in words.

    Example:
        >>> figure_name(['accuracy/top1']), figure_name(['coco/bbox_mAP'])
        ('accuracy', 'average precision')
    """
    return 'accuracy' if any(key.startswith('accuracy/') for key in keys) else 'average precision'


def is_validation(record: dict) -> bool:
    """Whether a record is the result of a validation; its ``step`` is the epoch then."""
    return 'time' in record and 'loss' not in record


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide logs, warnings and what is printed, such as the reports that exporters make for their developers."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
