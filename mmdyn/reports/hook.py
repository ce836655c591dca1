"""The report of a run: at the end of a test, and at the end of a training for its best validation."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmdyn.errors import UserError

from .classification import ClassificationReport
from .report import Report, make_report, write_report

PARTS = ('pre-process', 'network', 'post-process')


class Stopwatch:
    """Time of the parts of prediction: normalisation, the network up to its head, and decoding with NMS."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.images = 0
        self._handles: list[Any] = []
        self._marks: list[float] = []

    def start(self, model: Any) -> None:
        """Watch a model, if it has a head that is known."""
        model = model.module if is_model_wrapper(model) else model
        head = getattr(getattr(model, 'bbox_head', None), 'head_module', getattr(model, 'head', None))
        if (
            isinstance(head, nn.Module) and getattr(head, '_compiled_call_impl', None) is None
        ):  # a hook would end its graph
            self._handles = [
                model.data_preprocessor.register_forward_pre_hook(lambda *_: self._begin()),
                model.data_preprocessor.register_forward_hook(lambda *_: self._mark()),
                head.register_forward_hook(lambda *_: self._mark()),
                model.register_forward_hook(lambda *_: self._mark()),
            ]

    def stop(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def add(self, images: int) -> None:
        """Add a batch, which has just been predicted."""
        if len(self._marks) == len(PARTS) + 1:
            for part, begin, end in zip(PARTS, self._marks[:-1], self._marks[1:], strict=True):
                self.seconds[part] += end - begin
            self.images += images

    def milliseconds(self) -> dict[str, float]:
        """Of an image; empty if nothing was measured."""
        return {part: s / self.images * 1e3 for part, s in self.seconds.items()} if self.images else {}

    def _begin(self) -> None:
        self._marks = []
        self._mark()

    def _mark(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._marks.append(time.perf_counter())


@HOOKS.register_module()
class ReportHook(Hook):
    """Print a table by class, and write ``report/report.html`` and ``report.json`` beside the log.

    After a training they are of its best validation, and ``results.csv`` has a row for each epoch; after a resume of
    the last validation if none was better than before.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_coco')
        >>> config.default_hooks.report  # in every config; None leaves it out
        {'type': 'ReportHook'}
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._watch = Stopwatch()
        self._best_score = -math.inf
        self._kept: tuple[str, Any, dict[str, float]] | None = None

    def before_train(self, runner: Runner) -> None:
        """Take the best score of before a resume."""
        self._best_score = float(runner.message_hub.runtime_info.get('best_score', -math.inf))

    def before_val_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._watch = Stopwatch()
        self._watch.start(runner.model)

    def before_test_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self.before_val_epoch(runner)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Take the time of a batch."""
        self._watch.add(len(outputs or ()))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Take the time of a batch."""
        self._watch.add(len(outputs or ()))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the best validation."""
        self._watch.stop()
        evaluations = _evaluations(runner.val_evaluator)
        if not evaluations:
            return
        score = _score(evaluations)
        if score > self._best_score or self._kept is None or self._kept[0] != 'best':
            name = 'best' if score > self._best_score else 'last'
            self._kept = name, evaluations, self._watch.milliseconds()
        self._best_score = max(score, self._best_score)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report the test."""
        self._watch.stop()
        evaluations = _evaluations(runner.test_evaluator)
        if evaluations:
            _report(runner, evaluations, self._watch.milliseconds(), runner.test_dataloader, None)

    def after_train(self, runner: Runner) -> None:
        """Report the best validation."""
        if self._kept is not None:
            name, evaluations, milliseconds = self._kept
            print_log(f'of the {name} validation of this run:', logger='current')
            _report(runner, evaluations, milliseconds, runner.val_dataloader, runner.work_dir)


def _evaluations(evaluator: Any) -> Any:
    """What the last evaluation of a metric keeps for a report; only the first process has any."""
    found = [m.evaluations for m in evaluator.metrics if hasattr(m, 'evaluations')]
    return found[0] if found and is_main_process() else {}


def _report(
    runner: Runner, evaluations: Any, milliseconds: dict[str, float], loader: Any, work_dir: str | None
) -> None:
    try:
        report = _judge(evaluations, loader.dataset, milliseconds)
        write: Any = write_report if isinstance(report, Report) else ClassificationReport.write
        page = write(report, Path(runner.log_dir, 'report'), work_dir, last_only=not runner._resume)
    except (OSError, ValueError, UserError, cv2.error) as e:  # the run is done, and its results are written
        print_log(f'no report was written: {e}', logger='current', level=logging.WARNING)
        return
    print_log(f'\n{report.table()}\nreport: {page}', logger='current')


def _judge(evaluations: Any, dataset: Any, milliseconds: dict[str, float]) -> Report | ClassificationReport:
    """The report of evaluations by a ``DatasetCocoMetric``, or of the best classes by a ``TopAccuracy``."""
    if 'predicted' in evaluations:
        paths = [Path(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]
        classes = dataset.metainfo['classes']
        return ClassificationReport(**evaluations, classes=classes, paths=paths, milliseconds=milliseconds)
    folder = getattr(dataset, 'data_prefix', {}).get('img') or '.'
    boxes, *others = evaluations.values()
    return make_report(boxes, folder, milliseconds, *others)


def _score(evaluations: Any) -> float:
    """As what chooses the best checkpoint: AP to three digits, of masks or keypoints where there are any; accuracy."""
    if 'predicted' in evaluations:
        return float((evaluations['predicted'][:, 0] == evaluations['labels']).mean())
    return round([*evaluations.values()][-1].figures()['mAP'], 3)
