"""A comparison as an array job of Slurm (https://slurm.schedmd.com/job_array.html), one task per run."""

import os
import shlex
from pathlib import Path

from mmdyn.errors import UserError
from mmdyn.files import write_text

from .commands import log_line, short
from .plan import Plan, record
from .runs import read_run
from .sweep import LOCK_NAME, locked

SLURM = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --output={output}
# Add partition, time and devices:
#   sbatch --partition P --gres gpu:1 --cpus-per-task 8 --time 24:00:00 {path}
# Submit it again to continue interrupted runs; a finished run ends at once.
cd {cwd} || exit
case $SLURM_ARRAY_TASK_ID in
{cases}
esac
"""


def write_slurm(plan: Plan, train_tool: str | Path, jobs: int | None = None) -> Path:
    """Write an array script for Slurm, one task per run that is not done.

    Slurm keeps a copy of a submitted script, and a task locks the folder of its run. So this can be called again while
    tasks are pending.

    Args:
        plan: Configs and seeds.
        train_tool: Path of ``tools/train.py``.
        jobs: Tasks at a time; None leaves it to Slurm.

    Returns:
        The script.

    Raises:
        UserError: Every run is done, a sweep is running in the folder, or arms start from a run of the control.
    """
    if plan.declaration.start_epochs:
        raise UserError(
            '--start-epochs needs one machine, as tasks of Slurm do not wait for each other: omit one of both'
        )
    with locked(plan.work_dir):
        record(plan)
    waiting = [run for run in plan.runs() if not read_run(run).done]
    if not waiting:
        raise UserError(f'all {len(plan.runs())} runs in {plan.work_dir} are done: use --report-only')
    script = plan.work_dir / 'slurm.sh'
    cases = [
        f'{i}) mkdir -p {folder} && flock --nonblock {folder}/{LOCK_NAME} {line} ;;'
        for i, (folder, line) in enumerate((shlex.quote(short(r.folder)), log_line(r, train_tool)) for r in waiting)
    ]
    text = SLURM.format(
        name=plan.control,
        last=len(waiting) - 1,
        limit=f'%{jobs}' if jobs else '',
        output=f'"{short(plan.work_dir)}/slurm-%a.log"',  # the output of a run is in its own log
        path=script,
        cwd=shlex.quote(os.getcwd()),
        cases='\n'.join(cases),
    )
    write_text(script, text)
    return script
