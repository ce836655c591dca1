"""Class count: stop before the first iteration when the head and the data set disagree."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdyn.errors import UserError


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Compare the head's ``num_classes`` with the classes of the data set before training, validation and test.

    Raises:
        UserError: They differ; the message has both, and the line to change.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the training set, and the validation set if there is one."""
        self._check(runner, runner.train_dataloader)
        if runner.val_loop is not None:
            self._check(runner, runner.val_dataloader)

    def before_val(self, runner: Runner) -> None:
        """Check the validation set."""
        self._check(runner, runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        self._check(runner, runner.test_dataloader)

    @staticmethod
    def _check(runner: Runner, dataloader) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model = getattr(model, 'module', model)  # test-time augmentation wraps, too
        classes = dataloader.dataset.metainfo['classes']
        count = model.bbox_head.num_classes
        if count != len(classes):
            names = ', '.join(map(str, classes[:5])) + (', …' if len(classes) > 5 else '')
            raise UserError(
                f'the model has num_classes={count}, but the data set {dataloader.dataset.ann_file} has '
                f'{len(classes)} classes ({names}). Set '
                f'model.bbox_head.head_module.num_classes={len(classes)} in the config or by --cfg-options'
            )
