"""Tasks: what a model predicts, and the settings that depend on it outside the model.

Each task is registered in the module of its head.
"""

from typing import NamedTuple

from torch import nn

from mmdyn.errors import UserError


class Task(NamedTuple):
    """The settings of a task.

    Example:
        >>> TASKS['detect'].metrics['AP']
        'coco/bbox_mAP'
    """

    name: str  # as in the ``task`` of a head
    title: str  # in messages
    original_head: str  # name of the last layer's class in the Ultralytics package
    fields: tuple[str, ...]  # of the instances that are predicted
    metrics: dict[str, str]  # table heading -> key of the evaluator; comparisons use the first


TASKS: dict[str, Task] = {}
FOLDERS = ('pose', 'segment')  # of the configs of tasks other than detection


def register_task(task: Task) -> Task:
    """Add a task by its name."""
    TASKS[task.name] = task
    return task


def task_of(model: nn.Module) -> Task:
    """The task of a model, which its head states.

    Raises:
        UserError: The head has no ``task``, as in other packages.
    """
    head = getattr(model, 'bbox_head', None)
    name = getattr(head, 'task', None)
    if name not in TASKS:
        raise UserError(f'{type(head).__name__} has no task: set its attribute task to one of {", ".join(TASKS)}')
    return TASKS[name]
