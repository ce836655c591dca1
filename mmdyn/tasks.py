"""Tasks: what a model predicts, and what depends on that outside of the model.

Each task registers itself beside its head, so no file knows all of them.
"""

from typing import NamedTuple

from torch import nn

from mmdyn.errors import UserError


class Task(NamedTuple):
    """What a model predicts.

    Example:
        >>> TASKS['detect'].metrics['AP']
        'coco/bbox_mAP'
    """

    name: str  # as in the ``task`` of a head
    title: str  # in messages
    original_head: str  # name of the last layer's class in the Ultralytics package
    fields: tuple[str, ...]  # of the instances that are predicted
    metrics: dict[str, str]  # heading of a table -> key of the evaluator; the first is the one that is compared


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Add a task by its name."""
    TASKS[task.name] = task
    return task


def task_of(model: nn.Module) -> Task:
    """The task of a model, which its head states.

    Raises:
        UserError: The head states none, as those of other packages.
    """
    head = getattr(model, 'bbox_head', None)
    name = getattr(head, 'task', None)
    if name not in TASKS:
        raise UserError(f'{type(head).__name__} states no task: one of {", ".join(TASKS)} is needed')
    return TASKS[name]
