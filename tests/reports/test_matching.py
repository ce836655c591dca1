"""Matching against counts by hand, and precision and recall against a slow count."""

import numpy as np
import pytest

from mmdyn.reports.matching import KINDS, ImageMatches, confusion, count_errors, curves, one_to_one


def image(predictions, objects, overlaps, excused=None) -> ImageMatches:
    """Predictions are (score, class), objects classes."""
    scores, labels = np.array([s for s, _ in predictions]), np.array([k for _, k in predictions], int)
    overlaps = np.array(overlaps, float).reshape(len(predictions), len(objects))
    excused = np.array(excused if excused is not None else [False] * len(predictions), bool)
    return ImageMatches(scores, labels, np.array(objects, int), overlaps, excused)


# What there is, and by hand: the errors, and the confusion matrix of two classes and background.
CASES = {
    'found, and one on nothing': (
        image([(0.9, 0), (0.8, 1)], [0], [[0.8], [0.0]]),
        dict(correct=1, background=1),
        [[1, 0, 0], [0, 0, 0], [0, 1, 0]],
    ),
    'doubled': (
        image([(0.9, 0), (0.8, 0)], [0], [[0.6], [0.9]]),
        dict(correct=1, doubled=1),
        [[1, 0, 0], [0, 0, 0], [1, 0, 0]],
    ),
    'of the wrong class': (
        image([(0.9, 1)], [0], [[0.7]]),
        {'wrong class': 1},
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
    ),
    'poor, so that the object is not found but not missed either': (
        image([(0.9, 0)], [0], [[0.3]]),
        dict(poor=1),
        [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
    ),
    'missed, as the only prediction has too low a score': (
        image([(0.2, 0)], [0, 1], [[0.9, 0.0]]),
        dict(missed=2),
        [[0, 0, 1], [0, 0, 1], [0, 0, 0]],
    ),
    'own class first, although the other overlaps more': (
        image([(0.9, 1), (0.8, 0)], [0], [[0.9], [0.6]]),
        dict(correct=1, background=1),
        [[1, 0, 0], [0, 0, 0], [0, 1, 0]],
    ),
    'in a group': (
        image([(0.9, 0), (0.9, 1)], [0], [[0.0], [0.0]], excused=[True, False]),
        dict(background=1, missed=1),
        [[0, 0, 1], [0, 0, 0], [0, 1, 0]],
    ),
    'nothing at all': (image([], [], []), {}, [[0, 0, 0]] * 3),
}


@pytest.mark.parametrize('name', CASES)
def test_errors_and_confusion_are_those_counted_by_hand(name):
    case, errors, matrix = CASES[name]
    assert count_errors([case], 0.5) == {kind: errors.get(kind, 0) for kind in KINDS}
    assert confusion([case], 2, 0.5).tolist() == matrix


def test_counts_add_up_over_images():
    images = [case for case, _, _ in CASES.values()]
    total = sum(np.array(matrix) for _, _, matrix in CASES.values())
    assert (confusion(images, 2, 0.5) == total).all()
    objects, predictions = sum(len(i.object_labels) for i in images), sum((i.scores >= 0.5).sum() for i in images)
    assert total[:2].sum() == objects
    assert total[:, :2].sum() == predictions - 1  # but for the one in a group


def test_the_largest_overlap_is_matched_first():
    rng = np.random.default_rng(0)
    for _ in range(50):
        overlaps = rng.random(rng.integers(0, 7, 2))
        matched = one_to_one(overlaps)
        used = [c for c in matched if c >= 0]
        assert len(used) == len(set(used))
        for row, column in enumerate(matched):
            rivals = [
                overlaps[row, c]
                for c in range(overlaps.shape[1])
                if (row, c) != (row, column) and overlaps[row, c] >= 0.5 and c not in used
            ]
            assert max(rivals, default=0) <= (overlaps[row, column] if column >= 0 else 0.5)


def counted_slowly(each, score: float, k: int) -> tuple[int, int]:
    """Right and wrong predictions of a class from a score on, as if there were no others; the best chooses first."""
    left, right, wrong = set(range(len(each.object_labels))), 0, 0
    for i in sorted(range(len(each.scores)), key=lambda i: -each.scores[i]):
        if each.scores[i] < score or each.labels[i] != k:
            continue
        fitting = [j for j in left if each.object_labels[j] == k and each.overlaps[i, j] >= 0.5]
        if fitting:
            left.remove(max(fitting, key=lambda j: each.overlaps[i, j]))
        right, wrong = right + bool(fitting), wrong + (not fitting)
    return right, wrong


def test_precision_and_recall_are_those_of_a_slow_count():
    rng = np.random.default_rng(1)
    images = []
    for _ in range(40):
        p, o = rng.integers(1, 12), rng.integers(1, 8)
        predictions = [(float(s), int(k)) for s, k in zip(rng.random(p), rng.integers(0, 3, p), strict=True)]
        images.append(image(predictions, rng.integers(0, 3, o).tolist(), rng.random((p, o))))
    found = curves(images, 4)
    assert np.isnan(found.precision[3]).all()  # no object
    for score in (0.0, 0.3, 0.7):
        step = round(score * 999)
        for k in range(3):
            right, wrong = np.sum([counted_slowly(each, score, k) for each in images], 0)
            objects = sum((each.object_labels == k).sum() for each in images)
            # the curve runs straight between two predictions
            assert found.precision[k, step] == pytest.approx(right / (right + wrong), abs=0.02)
            assert found.recall[k, step] == pytest.approx(right / objects, abs=0.02)
    padded = np.pad(np.nanmean(found.f1, axis=0), 50, mode='edge')
    assert found.best == np.argmax([padded[i : i + 101].mean() for i in range(1000)])


def test_without_objects_or_predictions_there_are_curves_too():
    empty = curves([image([], [0], [])], 1)
    assert empty.precision.tolist() == [[0] * 1000]
    assert curves([image([(0.9, 0)], [], [])], 1).best == 0


def test_the_diagonal_counts_what_is_correct():
    rng = np.random.default_rng(3)
    images = []
    for _ in range(60):
        p, o = rng.integers(1, 10), rng.integers(1, 6)
        predictions = [(float(s), int(k)) for s, k in zip(rng.random(p), rng.integers(0, 2, p), strict=True)]
        images.append(image(predictions, rng.integers(0, 2, o).tolist(), rng.random((p, o))))
    for score in (0.0, 0.4):
        correct = count_errors(images, score)['correct']
        assert confusion(images, 2, score).diagonal()[:2].sum() == correct > 30
