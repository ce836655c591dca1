"""Tasks: what a model predicts, and the settings that depend on it outside the model.

Each task is registered in the module of its head.
"""

from typing import Any, NamedTuple

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
    original_model: str  # that of the whole model there
    suffix: str  # of the names of its models there, as in yolo11n-seg
    parts: str  # of objects, whose AP judges a model
    metrics: dict[str, str]  # table heading -> key of the evaluator; comparisons use the first
    data: str = 'coco'  # ends the names of the configs of published models
    labels: str | None = None  # what is read of an object beside its box: 'outlines', 'keypoints' or 'corners'
    outputs: tuple[str, ...] = ()  # of an exported graph, beside boxes and scores


TASKS: dict[str, Task] = {}
FOLDERS = ('classify', 'copy_paste', 'obb', 'pose', 'segment')  # of configs that have the names of those of detection


def register_task(task: Task) -> Task:
    """Add a task by its name."""
    TASKS[task.name] = task
    return task


def head_of(model: nn.Module) -> Any:
    """The head of a detector or of a classifier; None for a model that has neither."""
    return getattr(model, 'bbox_head', getattr(model, 'head', None))


def task_of(model: nn.Module) -> Task:
    """The task of a model, which its head states.

    Raises:
        UserError: The head has no ``task``, as in other packages.
    """
    head = head_of(model)
    name = getattr(head, 'task', None)
    if name not in TASKS:
        raise UserError(f'{type(head).__name__} has no task: set its attribute task to one of {", ".join(TASKS)}')
    return TASKS[name]
