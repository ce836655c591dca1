"""Class check: stops before the first iteration if model, data sets and checkpoint differ in classes or keypoints."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdyn.errors import UserError, listed_classes
from mmdyn.tasks import head_of

BOXES = 'model.bbox_head.head_module.num_classes'


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compare the head's ``num_classes`` and keypoints with the data sets, and their class names with each other.

    Labels are numbers: the same names in a different order would train and test wrongly without an error. The classes
    of a tested checkpoint are compared too.

    Raises:
        UserError: They differ; the message has both, and what to change.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> config.default_hooks.class_check  # in every config; None leaves it out
        {'type': 'ClassCheckHook'}
    """

    def __init__(self) -> None:
        self._trained_on: tuple | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the classes of the checkpoint."""
        self._trained_on = checkpoint.get('meta', {}).get('dataset_meta', {}).get('classes')

    def before_train(self, runner: Runner) -> None:
        """Check the training set, and the validation set if there is one."""
        self._trained_on = None  # fine-tuning may change the classes
        self._check_count(runner, runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self._check_count(runner, runner.val_dataloader.dataset)
            classes = runner.train_dataloader.dataset.metainfo['classes']
            self._check_names('the training set', classes, runner.val_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        """Check the validation set."""
        self._check_count(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        self._check_count(runner, runner.test_dataloader.dataset)
        trained_on = self._trained_on or getattr(runner.model, 'trained_on', None)  # the latter: an exported file
        if trained_on is not None:
            self._check_names('the checkpoint', trained_on, runner.test_dataloader.dataset)

    @staticmethod
    def _check_count(runner: Runner, dataset) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model = getattr(model, 'module', model)  # test-time augmentation wraps, too
        head, classes = head_of(model), dataset.metainfo['classes']
        count = head.num_classes
        if count != len(classes):
            raise UserError(
                f'the model has num_classes={count}, but {_file(dataset)} has '
                f'{listed_classes(classes)}. Set {class_count_key(head)}={len(classes)} in the config or by '
                '--cfg-options'
            )
        there, _ = getattr(head, 'keypoint_shape', (0, 0))
        given, _ = getattr(dataset, 'keypoints', (0, 0))  # a wrapped data set has none
        if there and given and there != given:
            raise UserError(
                f'the model has {there} keypoints, but {_file(dataset)} has {given}. Set '
                f'model.bbox_head.head_module.keypoint_shape to ({given}, 2) or ({given}, 3), or take the keypoints of '
                'the data by --data'
            )

    @staticmethod
    def _check_names(of: str, expected: tuple, dataset) -> None:
        classes = dataset.metainfo['classes']
        if tuple(expected) != tuple(classes):
            raise UserError(
                f'{of} has {listed_classes(expected)}; but {_file(dataset)} has {listed_classes(classes)}: '
                "list the categories in the same order in the annotation files' 'categories'"
            )


def class_count_key(head: Any) -> str:
    """Where a config states the number of classes."""
    return 'model.head.num_classes' if getattr(head, 'task', '') == 'classify' else BOXES


def _file(dataset) -> str:
    return f'the data set {dataset.metainfo.get("ann_file", type(dataset).__name__)}'
