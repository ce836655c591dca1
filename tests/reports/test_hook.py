"""Which validation a report is of, and that a report that cannot be written ends no run."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmdyn.annotations.coco import load_coco
from mmdyn.metrics import DatasetCocoMetric
from mmdyn.metrics.coco_evaluation import CocoEvaluation, Predicted
from mmdyn.reports import ReportHook
from mmdyn.reports import hook as report_hook
from mmdyn.reports.hook import Stopwatch


@pytest.fixture(scope='module')
def table(digits):
    return load_coco(digits / 'annotations/val.json')


def evaluated(table, share: float) -> SimpleNamespace:
    """An evaluator that has found a share of the images' objects."""
    found = round(share * len(table))
    predictions = []
    for row in range(len(table)):
        own = table.objects(row if row < found else 0)
        boxes = table.boxes[own] if row < found else np.zeros((0, 4))
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        labels = table.labels[own] if row < found else np.zeros(0, int)
        predictions.append(Predicted(row, corners, np.full(len(boxes), 0.9), labels))
    metric = DatasetCocoMetric(metric='bbox')
    metric.evaluations = {'bbox': CocoEvaluation(table, predictions)}
    return SimpleNamespace(metrics=[metric])


def runner_of(tmp_path, digits, before: float | None = None) -> SimpleNamespace:
    info = {} if before is None else {'best_score': before}
    return SimpleNamespace(
        model=nn.Linear(1, 1),
        message_hub=SimpleNamespace(runtime_info=info),
        val_dataloader=SimpleNamespace(dataset=SimpleNamespace(data_prefix=dict(img=str(digits / 'val')))),
        log_dir=str(tmp_path),
        work_dir=str(tmp_path),
        _resume=before is not None,
    )


@pytest.mark.parametrize(
    ('before', 'shares', 'expected'),
    [
        (None, [0.5, 1.0, 0.25], ('best', 1.0)),
        (0.01, [0.5, 0.25], ('best', 0.5)),
        (0.99, [0.5, 0.25], ('last', 0.25)),
        (0.6, [0.5, 1.0, 0.25], ('best', 1.0)),
    ],
)
def test_the_report_is_of_the_best_validation(table, digits, tmp_path, capsys, before, shares, expected):
    runner, hook = runner_of(tmp_path, digits, before), ReportHook()
    hook.before_train(runner)
    for share in shares:
        runner.val_evaluator = evaluated(table, share)
        hook.before_val_epoch(runner)
        hook.after_val_epoch(runner)
    name, share = expected
    kept = hook._kept
    assert kept[0] == name
    assert kept[1]['bbox'].figures() == evaluated(table, share).metrics[0].evaluations['bbox'].figures()
    hook.after_train(runner)
    assert (tmp_path / 'report/report.html').is_file()


def test_without_an_evaluation_there_is_no_report(digits, tmp_path):
    runner, hook = runner_of(tmp_path, digits), ReportHook()
    runner.val_evaluator = SimpleNamespace(metrics=[])
    hook.after_val_epoch(runner)
    hook.after_train(runner)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_ends_no_run(table, digits, tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    runner, hook = runner_of(tmp_path / 'file', digits), ReportHook()
    runner.val_evaluator = evaluated(table, 1.0)
    hook.after_val_epoch(runner)
    hook.after_train(runner)
    assert not (tmp_path / 'file/report').exists()


def test_a_mask_of_another_size_than_its_image_ends_no_run(digits, tmp_path, monkeypatch):
    content = json.loads((digits / 'annotations/val.json').read_text())
    wrong = {'size': [160, 160], 'counts': [100, 50, 25450]}
    for annotation in content['annotations']:
        annotation['segmentation'] = wrong
    (tmp_path / 'val.json').write_text(json.dumps(content))
    table, said = load_coco(tmp_path / 'val.json', outlines=True), []
    monkeypatch.setattr(report_hook, 'print_log', lambda message, **_: said.append(message))
    runner, hook = runner_of(tmp_path, digits), ReportHook()
    runner.val_evaluator = evaluated(table, 0.0)
    [metric] = runner.val_evaluator.metrics
    nothing = [image._replace(masks=[]) for image in metric.evaluations['bbox'].predictions]
    metric.evaluations |= {'segm': CocoEvaluation(table, nothing, iou_type='segm')}
    hook.after_val_epoch(runner)
    hook.after_train(runner)
    assert len(said) == 2
    assert re.search(r'no report was written: .*\.jpg: a mask of 160 x 160 pixels in an image of 320 x 320', said[1])


class Parts(nn.Module):
    """A detector with the parts that are timed."""

    def __init__(self) -> None:
        super().__init__()
        self.data_preprocessor, self.bbox_head = nn.Identity(), nn.Module()
        self.bbox_head.head_module = nn.Identity()

    def forward(self, x):
        return self.bbox_head.head_module(x)


def test_parts_are_timed_and_models_without_them_are_not():
    model, watch = Parts(), Stopwatch()
    watch.start(model)
    for _ in range(3):
        model(model.data_preprocessor(torch.zeros(1)))
        watch.add(2)
    watch.stop()
    assert watch.images == 6
    assert [*watch.milliseconds()] == ['pre-process', 'network', 'post-process']
    assert all(value >= 0 for value in watch.milliseconds().values())
    model(torch.zeros(1))  # no longer watched
    assert len(watch._marks) == 4
    other = Stopwatch()
    other.start(nn.Linear(1, 1))
    other.add(1)
    assert other.milliseconds() == {}
