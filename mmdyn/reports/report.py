"""The report of an evaluation: a table by class, curves, a confusion matrix, kinds of errors, the worst images."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask

from mmdyn.analysis.pictures import CocoMasks, draw_small
from mmdyn.datasets.pixels import read_pixels
from mmdyn.files import csv_text, render_page, write_json, write_text
from mmdyn.inference.onnx_detector import Detections, captions
from mmdyn.logs import is_validation, log_records
from mmdyn.metrics.coco_evaluation import CocoEvaluation, Predicted, with_sides
from mmdyn.metrics.oriented_iou import overlaps_of

from .figures import confusion_matrix, epoch_curves, score_curves
from .matching import KINDS, Curves, ImageMatches, confusion, count_errors, curves, kinds_of_errors

COLUMNS = ('class', 'images', 'objects', 'AP', 'AP50', 'precision', 'recall')
TASKS = {'segm': 'mask', 'keypoints': 'keypoint'}  # what is evaluated beside boxes
WORST = 12  # images on the page
HEIGHT, MAX_WIDTH = 300, 900  # of a picture, in pixels
# Colours (BGR) of objects that were found or missed, and of predictions by kind.
FOUND, MISSED = (80, 160, 40), (40, 40, 220)
COLOURS = ((80, 160, 40), (0, 140, 255), (200, 120, 0), (0, 200, 220), (40, 40, 220))


class Report(NamedTuple):
    """An evaluation in numbers.

    Args:
        evaluation: The evaluation of boxes, upright or oriented.
        matches: Its images, in the order of the predictions.
        curves: Precision and recall over scores.
        confusion: Counts by class of objects (rows) and predictions (columns), background last.
        errors: Counts by kind, at the score of the best F1.
        milliseconds: Time of an image by part; empty if it was not measured.
        paths: The images' files.
        other: The evaluation of masks or keypoints, if there are any.
    """

    evaluation: CocoEvaluation
    matches: Sequence[ImageMatches]
    curves: Curves
    confusion: np.ndarray
    errors: Mapping[str, int]
    milliseconds: Mapping[str, float]
    paths: Sequence[Path]
    other: CocoEvaluation | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of the table."""
        if self.other is None:
            return COLUMNS
        name = TASKS[self.other.iou_type]
        return (*COLUMNS, f'{name} AP', f'{name} AP50')

    def rows(self) -> list[dict[str, Any]]:
        """The table: all classes first, then each; a value is NaN where there is no object."""
        classes = self.evaluation.classes
        ap, ap50 = self.evaluation.by_class()
        best = self.curves.best
        precision, recall = self.curves.precision[:, best], self.curves.recall[:, best]
        objects = np.zeros(len(classes), int)
        images = np.zeros(len(classes), int)
        for image in self.matches:
            counts = np.bincount(image.object_labels, minlength=len(classes))
            objects, images = objects + counts, images + (counts > 0)
        totals = _present(self.evaluation.figures())
        whole: tuple[float, ...] = (
            len(self.matches),
            int(objects.sum()),
            totals['mAP'],
            totals['mAP_50'],
            _mean(precision),
            _mean(recall),
        )
        columns = [images.tolist(), objects.tolist(), ap, ap50, precision, recall]
        if self.other:
            columns += self.other.by_class()
            others = _present(self.other.figures())
            whole += others['mAP'], others['mAP_50']
        each = zip(*columns, strict=True)
        return [
            dict(zip(self.columns, (name, *(v if isinstance(v, int) else float(v) for v in values)), strict=True))
            for name, values in zip(('all', *classes), (whole, *each), strict=True)
        ]

    def table(self) -> str:
        """The table as aligned text; a single class is not listed again."""
        rows = self.rows()
        cells = [[cell(value) for value in row.values()] for row in (rows if len(rows) > 2 else rows[:1])]
        lines = aligned(self.columns, cells)
        lines.append(f'precision and recall at a score of {self.curves.best_score:.2f}, the best mean F1')
        return '\n'.join([*lines, *times(self.milliseconds)])

    def as_json(self) -> dict[str, Any]:
        """Everything in numbers, for machines; NaN is null."""
        rows = [{k: None if v != v else v for k, v in row.items()} for row in self.rows()]
        return dict(
            figures=self.evaluation.figures(),
            **({'VOC_AP50': self.evaluation.voc_ap50()} if self.evaluation.iou_type == 'oriented' else {}),
            **({f'{TASKS[self.other.iou_type]}_figures': self.other.figures()} if self.other else {}),
            classes=rows,
            best_score=self.curves.best_score,
            errors=dict(self.errors),
            confusion=dict(names=[*self.evaluation.classes, 'background'], counts=self.confusion.tolist()),
            milliseconds=dict(self.milliseconds),
        )


def _present(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures, NaN where there is no object."""
    return {name: value if value >= 0 else float('nan') for name, value in figures.items()}


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float('nan')


def aligned(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table as text: the first column on the left, others on the right."""
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return [
        '  '.join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in (columns, *cells)
    ]


def times(milliseconds: Mapping[str, float]) -> list[str]:
    """The line of the times of an image by part; none if they were not measured."""
    parts = ', '.join(f'{part} {value:.1f}' for part, value in milliseconds.items())
    return [f'ms an image: {parts}'] if parts else []


def cell(value: Any) -> str:
    """A value of a table as text."""
    return str(value) if not isinstance(value, float) else '–' if value != value else f'{value:.3f}'


def make_report(
    evaluation: CocoEvaluation,
    folder: str | Path = '.',
    milliseconds: Mapping[str, float] | None = None,
    other: CocoEvaluation | None = None,
) -> Report:
    """Judge the predictions of an evaluation.

    Args:
        evaluation: Evaluation of boxes, upright or oriented.
        folder: Folder of the images, unless their paths are absolute.
        milliseconds: Time of an image by part.
        other: Evaluation of masks or keypoints, if there are any.
    """
    count = len(evaluation.classes)
    matches = [match_boxes(evaluation, image) for image in evaluation.predictions]
    found = curves(matches, count)
    return Report(
        evaluation,
        matches,
        found,
        confusion(matches, count, found.best_score),
        count_errors(matches, found.best_score),
        milliseconds or {},
        [Path(folder, evaluation.annotations.files[image.row]) for image in evaluation.predictions],
        other,
    )


def match_boxes(evaluation: CocoEvaluation, image: Predicted) -> ImageMatches:
    """Overlaps of the boxes of an image.

    Args:
        evaluation: Where the objects are.
        image: The predictions.
    """
    table = evaluation.annotations
    objects = table.objects(image.row)
    column = np.full(len(table.classes), -1)
    column[evaluation.columns] = np.arange(len(evaluation.columns))
    labels = column[table.labels[objects]]
    group = table.crowd[objects] & (labels >= 0)
    single = ~group & (labels >= 0)
    if evaluation.iou_type == 'oriented':
        turned = evaluation.oriented_boxes[objects]
        both = overlaps_of(evaluation.overlap, image.oriented_boxes, turned, group)
        overlaps, inside = both[:, single], both[:, group]
    else:
        boxes = with_sides(image.boxes)
        overlaps = _overlaps(boxes, table.boxes[objects][single], group=False)
        inside = _overlaps(boxes, table.boxes[objects][group], group=True)
    excused = np.asarray(((inside >= 0.5) & (image.labels[:, None] == labels[group])).any(1))
    return ImageMatches(image.scores, image.labels, labels[single], overlaps, excused)


def _overlaps(boxes: np.ndarray, others: np.ndarray, group: bool) -> np.ndarray:
    """IoU; for a group the share of each box that is inside."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(coco_mask.iou(boxes, np.ascontiguousarray(others), [int(group)] * len(others)))


def write_report(
    report: Report, folder: str | Path, work_dir: str | Path | None = None, last_only: bool = True
) -> Path:
    """Write ``report.html``, which opens without a server, and ``report.json``; for a training ``results.csv``, too.

    Args:
        report: The report.
        folder: Folder to write to.
        work_dir: Folder of a training, for the curves of its epochs.
        last_only: As in :func:`epoch_rows`.

    Returns:
        The page.
    """
    folder = Path(folder)
    epochs = epoch_rows(work_dir, last_only) if work_dir is not None else []
    write_json(folder / 'report.json', report.as_json(), indent=1)
    write_epochs(epochs, folder)
    pictures = dict(
        curves=score_curves(report.curves, report.evaluation.classes),
        confusion=confusion_matrix(report.confusion, [*report.evaluation.classes, 'background']),
        epochs=epoch_curves(epochs) if epochs else None,
    )
    page = folder / 'report.html'
    text = render_page(
        Path(__file__).with_name('report.html.jinja'),
        columns=report.columns,
        rows=[[cell(value) for value in row.values()] for row in report.rows()],
        figures={k: cell(v) for k, v in _present(report.evaluation.figures()).items()},
        voc=cell(report.evaluation.voc_ap50()) if report.evaluation.iou_type == 'oriented' else '',
        score=f'{report.curves.best_score:.2f}',
        errors=report.errors,
        milliseconds=report.milliseconds,
        pictures={name: embedded(image, '.png') for name, image in pictures.items() if image is not None},
        worst=[(name, embedded(image, '.jpg'), text) for name, image, text in worst_images(report)],
        colours={kind: _css(colour) for kind, colour in zip(KINDS, (*COLOURS, MISSED), strict=True)},
    )
    write_text(page, text)
    return page


def write_epochs(epochs: Sequence[Mapping[str, Any]], folder: str | Path) -> None:
    """Write ``results.csv``, a row for each epoch, if there are any."""
    if epochs:
        header = list(dict.fromkeys(key for row in epochs for key in row))
        values = ([row.get(key, '') for key in header] for row in epochs)
        rows = [[f'{v:.6g}' if isinstance(v, float) else v for v in row] for row in values]
        write_text(Path(folder, 'results.csv'), csv_text(header, rows))


def epoch_rows(work_dir: str | Path, last_only: bool = True) -> list[dict[str, Any]]:
    """One row an epoch: the losses of its last log record, and the metrics of its validation.

    Args:
        work_dir: Folder of a training.
        last_only: Of its last run only; a resumed training has several.
    """
    rows: dict[int, dict[str, Any]] = {}
    for record in log_records(work_dir, last_only):
        if is_validation(record):
            row = rows.setdefault(int(record['step']), {})
            row.update({k: v for k, v in record.items() if k not in ('step', 'time', 'data_time')})
        elif 'loss' in record and 'epoch' in record:  # a training by iterations has none
            row = rows.setdefault(int(record['epoch']), {})
            row.update({k: v for k, v in record.items() if k.startswith('loss') or k == 'lr'})
    return [dict(epoch=epoch, **rows[epoch]) for epoch in sorted(rows)]


def worst_images(report: Report, count: int = WORST) -> list[tuple[str, np.ndarray, str]]:
    """Name, picture and counts of the images with the most errors: objects on the left, predictions on the right.

    Args:
        report: The report.
        count: Number of images.
    """
    score = report.curves.best_score
    judged = [kinds_of_errors(image, score) for image in report.matches]
    errors = np.array([(kinds > 0).sum() + missed.sum() for kinds, missed in judged])
    pictures = []
    for i in np.argsort(-errors, kind='stable')[:count]:
        if not errors[i] or not report.paths[i].is_file():
            continue
        kinds, missed = judged[i]
        counts = np.bincount(kinds[kinds >= 0], minlength=len(KINDS) - 1)
        words = [f'{n} {kind}' for n, kind in zip((*counts[1:], missed.sum()), KINDS[1:], strict=True) if n]
        pictures.append((report.paths[i].name, _beside(report, int(i), kinds, missed), ', '.join(words)))
    return pictures


def _beside(report: Report, i: int, kinds: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """The objects of an image beside its predictions, as a BGR array of ``HEIGHT``."""
    evaluation, image = report.evaluation, report.evaluation.predictions[i]
    table = evaluation.annotations
    objects = table.objects(image.row)
    kept = ~table.crowd[objects] & np.isin(table.labels[objects], evaluation.columns)
    corners = table.boxes[objects][kept] + np.pad(table.boxes[objects][kept][:, :2], ((0, 0), (2, 0)))
    pixels = read_pixels(report.paths[i])
    numbers = np.arange(objects.start, objects.stop)[kept]
    there = Detections(corners, np.ones(len(numbers)), report.matches[i].object_labels)
    shown = np.flatnonzero(image.scores >= report.curves.best_score)
    found = Detections(image.boxes[shown], image.scores[shown], image.labels[shown])
    kind = evaluation.iou_type if report.other is None else report.other.iou_type
    if kind == 'segm':
        of_image = pixels.shape[:2], str(report.paths[i])
        there = there._replace(masks=CocoMasks([table.segmentation(int(k)) for k in numbers], *of_image))
        found = found._replace(masks=CocoMasks([image.masks[k] for k in shown.tolist()], *of_image))
    elif kind == 'keypoints':
        points = table.keypoints[numbers]
        there = there._replace(keypoints=points[..., :2], keypoint_scores=points[..., 2] > 0)
        points = image.keypoints[shown]
        found = found._replace(keypoints=points[..., :2], keypoint_scores=points[..., 2])
    elif kind == 'oriented':
        there = there._replace(oriented_boxes=evaluation.oriented_boxes[numbers])
        found = found._replace(oriented_boxes=image.oriented_boxes[shown])
    names = [evaluation.classes[k] for k in there.labels]
    sides = (
        (there, names, [MISSED if m else FOUND for m in missed]),
        (found, captions(found, evaluation.classes), [COLOURS[k] if k >= 0 else (150, 150, 150) for k in kinds]),
    )
    left, right = (
        draw_small(pixels, each, texts, HEIGHT, MAX_WIDTH, table.skeleton, colours) for each, texts, colours in sides
    )
    return np.hstack([left, np.full((len(left), 8, 3), 255, np.uint8), right])


def embedded(image: np.ndarray, suffix: str) -> str:
    """An image as the source of an ``img``."""
    kind = {'.png': 'png', '.jpg': 'jpeg'}[suffix]
    return f'data:image/{kind};base64,{base64.b64encode(cv2.imencode(suffix, image)[1].tobytes()).decode()}'


def _css(colour: tuple[int, int, int]) -> str:
    blue, green, red = colour
    return f'rgb({red}, {green}, {blue})'
