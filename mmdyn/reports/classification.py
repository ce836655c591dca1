"""The report of a test of a classifier: a table by class, the confusion matrix, the surest mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from sklearn.metrics import confusion_matrix as count_pairs
from sklearn.metrics import precision_recall_fscore_support

from mmdyn.datasets.pixels import read_pixels
from mmdyn.files import render_page, write_json, write_text
from mmdyn.inference.onnx_detector import Detections, captions, draw

from .figures import confusion_matrix, epoch_curves
from .report import WORST, aligned, cell, embedded, epoch_rows, times, write_epochs

COLUMNS = ('class', 'images', 'precision', 'recall', 'F1')
SIDE = 200  # of a picture, in pixels
SHOWN_CLASSES = 20  # in a log; if there are more, the worst


class ClassificationReport(NamedTuple):
    """A test of a classifier in numbers.

    Args:
        scores: Of the best classes of every image, best first, (N, k).
        predicted: These classes, (N, k).
        labels: The right classes, (N,).
        classes: Their names.
        paths: The images' files; empty where they are not known.
        milliseconds: Time of an image by part; empty if it was not measured.

    Example:
        >>> best = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
        >>> report = ClassificationReport(best * 0 + 0.5, best, np.array([0, 1, 0, 0]), ('ant', 'bee'))
        >>> report.accuracy(1), report.rows()[2]
        (0.75, {'class': 'bee', 'images': 1, 'precision': 0.5, 'recall': 1.0, 'F1': 0.6666666666666666})
    """

    scores: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    paths: Sequence[Path] = ()
    milliseconds: Mapping[str, float] = {}

    def accuracy(self, k: int) -> float:
        """The share of images one of whose ``k`` best classes is right."""
        return float((self.predicted[:, :k] == self.labels[:, None]).any(1).mean())

    def confusion(self) -> np.ndarray:
        """Images by their class (rows) and by what they are taken for (columns)."""
        return count_pairs(self.labels, self.predicted[:, 0], labels=range(len(self.classes)))

    def rows(self) -> list[dict[str, Any]]:
        """The table: the mean of all classes first, then each."""
        precision, recall, f1, images = precision_recall_fscore_support(
            self.labels, self.predicted[:, 0], labels=range(len(self.classes)), zero_division=0.0
        )
        each = np.where(images[:, None] > 0, np.stack([precision, recall, f1], 1), np.nan)
        whole = each[images > 0].mean(0)
        rows = [('all', len(self.labels), *whole.tolist())]
        rows += [(n, int(count), *v) for n, count, v in zip(self.classes, images, each.tolist(), strict=True)]
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def table(self) -> str:
        """The table as aligned text; of many classes the worst."""
        whole, *rows = self.rows()
        note = []
        if len(rows) > SHOWN_CLASSES:
            note = [f'the worst {SHOWN_CLASSES} of {len(rows)} classes by F1; report.json has all']
            rows = sorted((row for row in rows if row['images']), key=lambda row: row['F1'])[:SHOWN_CLASSES]
        lines = aligned(COLUMNS, [[cell(value) for value in row.values()] for row in (whole, *rows)]) + note
        lines.append(f'top-1 {self.accuracy(1):.3f}, top-5 {self.accuracy(5):.3f}')
        return '\n'.join([*lines, *times(self.milliseconds)])

    def as_json(self) -> dict[str, Any]:
        """Everything in numbers, for machines; NaN is null."""
        rows = [{k: None if v != v else v for k, v in row.items()} for row in self.rows()]
        return dict(
            figures=dict(top1=self.accuracy(1), top5=self.accuracy(5)),
            classes=rows,
            confusion=dict(names=list(self.classes), counts=self.confusion().tolist()),
            milliseconds=dict(self.milliseconds),
        )

    def surest_mistakes(self) -> list[tuple[str, np.ndarray, str]]:
        """Name, picture and class of the images whose best class is wrong and has the highest scores."""
        wrong = np.flatnonzero(self.predicted[:, 0] != self.labels)
        pictures = []
        for i in wrong[np.argsort(-self.scores[wrong, 0], kind='stable')][:WORST]:
            if i >= len(self.paths) or not self.paths[i].is_file():
                continue
            image = read_pixels(self.paths[i])
            height, width = image.shape[:2]
            scale = min(SIDE / min(height, width), 2 * SIDE / max(height, width))
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            found = Detections(None, self.scores[i], self.predicted[i])
            picture = draw(image, found, captions(found, self.classes))
            pictures.append((self.paths[i].name, picture, self.classes[self.labels[i]]))
        return pictures

    def write(self, folder: str | Path, work_dir: str | Path | None = None, last_only: bool = True) -> Path:
        """Write ``report.html`` and ``report.json``, and ``results.csv`` of a training.

        Args:
            folder: Folder to write to.
            work_dir: Folder of a training, for the curves of its epochs.
            last_only: As in :func:`mmdyn.reports.report.epoch_rows`.

        Returns:
            The page.
        """
        epochs = epoch_rows(work_dir, last_only) if work_dir is not None else []
        write_json(Path(folder, 'report.json'), self.as_json())
        write_epochs(epochs, folder)
        pictures = dict(
            confusion=confusion_matrix(self.confusion(), self.classes, 'image'),
            epochs=epoch_curves(epochs) if epochs else None,
        )
        page = Path(folder, 'report.html')
        text = render_page(
            Path(__file__).with_name('classification.html.jinja'),
            top1=cell(self.accuracy(1)),
            top5=cell(self.accuracy(5)),
            images=len(self.labels),
            columns=COLUMNS,
            rows=[[cell(value) for value in row.values()] for row in self.rows()],
            milliseconds=self.milliseconds,
            pictures={name: embedded(image, '.png') for name, image in pictures.items() if image is not None},
            worst=[(name, embedded(image, '.jpg'), text) for name, image, text in self.surest_mistakes()],
        )
        write_text(page, text)
        return page
