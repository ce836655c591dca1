"""Logs of a work dir: the records that its runs wrote through MMEngine's visualizer."""

import json
from collections.abc import Iterator
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


def is_validation(record: dict) -> bool:
    """Whether a record is the result of a validation; its ``step`` is the epoch then."""
    return 'time' in record and 'loss' not in record
