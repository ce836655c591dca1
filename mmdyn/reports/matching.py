"""Predictions matched with objects: precision and recall over scores, a confusion matrix, kinds of errors.

Nothing here knows boxes: an image is scores, labels, and how much each prediction overlaps each object, whatever the
task measures overlap by.

Shapes: p predictions, o objects, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OVERLAP = 0.5  # from here on a prediction has found an object
NEAR = 0.1  # from here on it has found it poorly
STEPS = 1000  # scores at which precision and recall are taken
SMOOTHING = 0.1  # share of the scores over which F1 is averaged, so that a single prediction does not choose the best
KINDS = ('correct', 'wrong class', 'doubled', 'poor', 'background', 'missed')


class ImageMatches(NamedTuple):
    """An image: what was predicted, what is there, and how they overlap; groups (``iscrowd``) are no objects here.

    Args:
        scores: Scores, (p,).
        labels: Predicted classes, (p,).
        object_labels: Classes of the objects, (o,).
        overlaps: Overlap of each prediction with each object, 0 to 1, (p, o).
        excused: Whether a prediction lies in a group, so that it is neither right nor wrong unless it is matched, (p,).
    """

    scores: np.ndarray
    labels: np.ndarray
    object_labels: np.ndarray
    overlaps: np.ndarray
    excused: np.ndarray

    def above(self, score: float) -> 'ImageMatches':
        """The image with the predictions of at least a score."""
        kept = self.scores >= score
        return self._replace(
            scores=self.scores[kept],
            labels=self.labels[kept],
            overlaps=self.overlaps[kept],
            excused=self.excused[kept],
        )


def one_to_one(overlaps: np.ndarray, least: float = OVERLAP) -> np.ndarray:
    """Match predictions and objects, the largest overlap first.

    Args:
        overlaps: (p, o).
        least: Smallest overlap of a match.

    Returns:
        The object of each prediction, -1 for none, (p,).

    Example:
        >>> one_to_one(np.array([[0.9, 0.6], [0.8, 0.2], [0.0, 0.55]]))
        array([ 0, -1,  1])
    """
    found = np.full(len(overlaps), -1)
    taken = np.zeros(overlaps.shape[1] if overlaps.ndim == 2 else 0, bool)
    rows, columns = np.nonzero(overlaps >= least)
    for i in np.argsort(-overlaps[rows, columns], kind='stable'):
        if found[rows[i]] < 0 and not taken[columns[i]]:
            found[rows[i]], taken[columns[i]] = columns[i], True
    return found


def by_score(image: ImageMatches, least: float = OVERLAP) -> np.ndarray:
    """Match predictions with objects of their class: the best score first, as COCO does.

    Args:
        image: The image.
        least: Smallest overlap of a match.

    Returns:
        The object of each prediction, -1 for none, (p,): of those that are left, the one that it overlaps most.

    Example:
        >>> image = ImageMatches(*map(np.array, ([0.9, 0.5], [0, 0], [0], [[0.6], [0.8]], [False, False])))
        >>> by_score(image)
        array([ 0, -1])
    """
    overlaps = image.overlaps * _same_class(image)
    found = np.full(len(image.scores), -1)
    candidates = np.flatnonzero((overlaps >= least).any(1))
    for i in candidates[np.argsort(-image.scores[candidates], kind='stable')]:
        best = overlaps[i].argmax()
        if overlaps[i, best] >= least:
            found[i] = best
            overlaps[:, best] = 0
    return found


def _same_class(image: ImageMatches) -> np.ndarray:
    return image.labels[:, None] == image.object_labels[None]


class Curves(NamedTuple):
    """Precision, recall and F1 of each class over scores, and the score at which the mean F1 is best.

    Args:
        scores: (S,), from 0 to 1.
        precision: (K, S); NaN for classes without objects.
        recall: Likewise.
        best: Index of the best score.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    best: int

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, (K, S)."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-16)

    @property
    def best_score(self) -> float:
        """The score of the best mean F1."""
        return float(self.scores[self.best])


def curves(images: Sequence[ImageMatches], classes: int, least: float = OVERLAP) -> Curves:
    """Precision and recall over scores.

    Args:
        images: The images.
        classes: Number of classes.
        least: Smallest overlap of a match.
    """
    scores, labels, correct = [np.empty(0)], [np.empty(0, int)], [np.empty(0, bool)]
    objects = np.zeros(classes, int)
    for image in images:
        matched = by_score(image, least) >= 0
        counted = matched | ~image.excused
        scores.append(image.scores[counted])
        labels.append(image.labels[counted])
        correct.append(matched[counted])
        objects += np.bincount(image.object_labels, minlength=classes)
    score, label, right = map(np.concatenate, (scores, labels, correct))
    grid = np.linspace(0, 1, STEPS)
    precision, recall = np.full((2, classes, STEPS), np.nan)
    for k in np.flatnonzero(objects):
        order = np.argsort(-score[label == k], kind='stable')
        own, hits = score[label == k][order], right[label == k][order].cumsum()
        if not len(own):
            precision[k], recall[k] = 0, 0
            continue
        precision[k] = np.interp(-grid, -own, hits / np.arange(1, len(own) + 1), left=1)
        recall[k] = np.interp(-grid, -own, hits / objects[k], left=0)
    result = Curves(grid, precision, recall, 0)
    if not objects.any():
        return result
    return result._replace(best=int(_smooth(np.nanmean(result.f1, axis=0)).argmax()))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window; the ends are repeated."""
    width = round(len(values) * SMOOTHING) // 2 * 2 + 1
    padded = np.pad(values, width // 2, mode='edge')
    return np.convolve(padded, np.full(width, 1 / width), mode='valid')


def confusion(images: Sequence[ImageMatches], classes: int, score: float, least: float = OVERLAP) -> np.ndarray:
    """Count which class was predicted for which.

    A prediction is first matched with an object of its own class, the best score first, then with another, the largest
    overlap first.

    Args:
        images: The images.
        classes: Number of classes K.
        score: Least score of a prediction.
        least: Smallest overlap of a match.

    Returns:
        Counts, (K + 1, K + 1): rows are classes of objects, columns are predictions; the last of each is background.
    """
    counts = np.zeros((classes + 1, classes + 1), int)
    for image in (each.above(score) for each in images):
        matched = by_score(image, least)
        others = image.overlaps.copy()  # for predictions and objects that are left
        others[matched >= 0] = 0
        others[:, matched[matched >= 0]] = 0
        matched = np.maximum(matched, one_to_one(others, least))
        labels = np.append(image.object_labels, classes)  # -1 is the last one: background
        judged = (matched >= 0) | ~image.excused
        np.add.at(counts, (labels[matched[judged]], image.labels[judged]), 1)
        missed = np.setdiff1d(np.arange(len(image.object_labels)), matched)
        np.add.at(counts, (image.object_labels[missed], classes), 1)
    return counts


def kinds_of_errors(image: ImageMatches, score: float) -> tuple[np.ndarray, np.ndarray]:
    """What each prediction is, and which objects nothing has found.

    A prediction is ``correct`` if it is matched with an object of its class. Otherwise it is of the ``wrong class`` if
    it overlaps an object of another class that is not found, ``doubled`` if it overlaps one of its class that another
    prediction has found, ``poor`` if it overlaps one of its class a little, else ``background``. An object is missed if
    no prediction of any of the first four kinds is on it.

    Args:
        image: The image.
        score: Least score of a prediction.

    Returns:
        Indices of ``KINDS``, (p,), -1 for predictions that are not judged; whether an object is missed, (o,).
    """
    image = image.above(score)
    same = _same_class(image)
    matched = by_score(image)
    found = np.zeros(len(image.object_labels), bool)
    found[matched[matched >= 0]] = True
    well = image.overlaps >= OVERLAP
    near = same & (image.overlaps >= NEAR)
    wrong = (well & ~same & ~found).any(1)
    doubled = (well & same).any(1)
    poor = near.any(1)
    kinds = np.select(
        [matched >= 0, wrong, doubled, poor, ~image.excused], [KINDS.index(kind) for kind in KINDS[:5]], default=-1
    )
    missed = ~found & ~(well | near).any(0)
    return kinds, missed


def count_errors(images: Sequence[ImageMatches], score: float) -> dict[str, int]:
    """How many predictions and objects are of each kind.

    Args:
        images: The images.
        score: Least score of a prediction.

    Example:
        >>> image = ImageMatches(*map(np.array, ([0.9, 0.8], [0, 0], [0, 0], [[0.9, 0.0], [0.7, 0.0]], [False, False])))
        >>> count_errors([image], 0.5)
        {'correct': 1, 'wrong class': 0, 'doubled': 1, 'poor': 0, 'background': 0, 'missed': 1}
    """
    counts = np.zeros(len(KINDS), int)
    for image in images:
        kinds, missed = kinds_of_errors(image, score)
        counts[:-1] += np.bincount(kinds[kinds >= 0], minlength=len(KINDS) - 1)
        counts[-1] += missed.sum()
    return dict(zip(KINDS, counts.tolist(), strict=True))
