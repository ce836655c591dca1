"""The task of a model is what its head states."""

from types import SimpleNamespace

import pytest

from mmdyn.errors import UserError
from mmdyn.tasks import TASKS, task_of


def test_the_head_states_the_task():
    assert task_of(SimpleNamespace(bbox_head=SimpleNamespace(task='detect'))) is TASKS['detect']
    with pytest.raises(
        UserError, match='SimpleNamespace has no task: set its attribute task to one of classify, detect, obb, pose'
    ):
        task_of(SimpleNamespace(bbox_head=SimpleNamespace()))
