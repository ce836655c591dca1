"""The task of classification, which is known without mmpretrain, and what to do where that is missing."""

from importlib.util import find_spec

from mmdyn.errors import UserError
from mmdyn.tasks import Task, register_task

CLASSIFY = register_task(
    Task(
        name='classify',
        title='classification',
        original_head='Classify',
        original_model='ClassificationModel',
        suffix='-cls',
        parts='classes',
        metrics={'top-1': 'accuracy/top1', 'top-5': 'accuracy/top5'},
        data='imagenet',
        labels='classes',
    )
)


def need_mmpretrain() -> None:
    """Refuse what needs mmpretrain where it is not installed.

    Raises:
        UserError: It is missing.
    """
    if find_spec('mmpretrain') is None:
        raise UserError('classification needs mmpretrain: pip install mmpretrain==1.2.0 (requirements/classify.txt)')
