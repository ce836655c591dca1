"""Which detections are kept: the same by a checkpoint, by an exported file, and by a slow search over all boxes."""

import numpy as np
import pytest
import torch

import mmdyn
from mmdyn.errors import UserError
from mmdyn.inference.onnx_detector import Limits


def overlap(a, b) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inside = np.prod(sides.clip(0))
    return inside / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside)


def slow_search(boxes, scores, limits: Limits) -> list[tuple[int, int]]:
    """Prior and class of what is kept, by comparing all with all: boxes (N, 4), scores (N, classes)."""
    pairs = [(i, j) for i, j in np.argwhere(scores > limits.score) if limits.classes is None or j in limits.classes]
    kept: list[tuple[int, int]] = []
    for i, j in sorted(pairs, key=lambda pair: -scores[pair]):
        if all(overlap(boxes[i], boxes[k]) <= limits.iou for k, label in kept if limits.agnostic or label == j):
            kept.append((i, j))
    return kept[: limits.max_detections]


CASES = [
    Limits(0.05, 0.7, 300),
    Limits(0.05, 0.3, 300),
    Limits(0.05, 0.3, 300, agnostic=True),
    Limits(0.05, 0.6, 5),
    Limits(0.02, 0.6, 300, classes=[1, 7]),
    Limits(0.02, 0.6, 4, classes=[1, 7], agnostic=True),
]


@pytest.fixture(scope='module')
def model():
    return mmdyn.load_model('digits', device='cpu')


@pytest.fixture(scope='module')
def all_boxes(model, digits):
    """Every box of the first three images, and its scores."""
    from mmdyn.export.graph import DetectionGraph

    graph, found = DetectionGraph(model.detector.model), []
    for path in sorted((digits / 'val').iterdir())[:3]:
        inputs = model.detector.pipeline(dict(img=model.open(path).read(path), img_id=0))
        batch = dict(inputs=[inputs['inputs']], data_samples=[inputs['data_samples']])
        with torch.no_grad():
            outputs = graph(model.detector.model.data_preprocessor(batch)['inputs'])
        found.append((path, *(output[0].numpy() for output in outputs)))
    return found


@pytest.mark.parametrize('limits', CASES, ids=str)
def test_a_checkpoint_keeps_what_a_slow_search_keeps(model, all_boxes, limits):
    numbers = 0
    for path, boxes, scores in all_boxes:
        kept = slow_search(boxes, scores, limits)
        found = model(path, *limits).pred_instances
        assert found.labels.tolist() == [label for _, label in kept]
        np.testing.assert_allclose(found.scores, [scores[pair] for pair in kept], atol=1e-5)
        clipped = np.array([boxes[i] for i, _ in kept]).reshape(-1, 4).clip(0, 320)
        np.testing.assert_allclose(found.bboxes, clipped, atol=0.01)
        numbers += len(kept)
    assert numbers > 3


@pytest.mark.parametrize('limits', CASES, ids=str)
def test_the_selection_of_exported_files_is_that_of_a_slow_search(all_boxes, limits):
    from mmdyn.inference.onnx_detector import OnnxDetector

    detector = OnnxDetector.__new__(OnnxDetector)  # without a file: the selection needs its metadata only
    detector.meta = dict(iou_threshold=0.7, max_detections=300)
    for _, boxes, scores in all_boxes:
        kept = slow_search(boxes, scores, limits)
        rows, values, labels = detector.select(boxes, scores, limits)
        assert labels.tolist() == [label for _, label in kept]
        np.testing.assert_allclose(boxes[rows], np.array([boxes[i] for i, _ in kept]).reshape(-1, 4))
        np.testing.assert_array_equal(values, [scores[pair] for pair in kept])


def test_a_batch_gives_what_each_image_gives(model, digits):
    paths = sorted((digits / 'val').iterdir())[:3]
    arrays = [model.open(path).read(path) for path in paths]
    arrays[1] = arrays[1][:200]  # another shape, in the middle
    for one, together in zip((model(a, 0.05) for a in arrays), model(arrays, 0.05), strict=True):
        np.testing.assert_allclose(one.pred_instances.bboxes, together.pred_instances.bboxes, atol=0.01)


def test_the_settings_of_the_model_stay(model, digits):
    path = sorted((digits / 'val').iterdir())[0]
    before = model(path, 0.05).rows()
    model(path, 0.5, iou=0.1, max_detections=1, classes=['3'], agnostic=True)
    assert model(path, 0.05).rows() == before


def test_classes_go_by_name_or_number(model, digits):
    path = sorted((digits / 'val').iterdir())[0]
    every = model(path, 0.02).pred_instances
    chosen = model(path, 0.02, classes=['3', 5]).pred_instances
    assert set(chosen.labels.tolist()) <= {3, 5}
    assert len(chosen) == sum(label in (3, 5) for label in every.labels.tolist())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(score=7), r'invalid score 7: set it from 0 to 1'),
        (dict(iou=-0.1), r'invalid iou -0\.1: set it from 0 to 1'),
        (dict(max_detections=0), 'invalid number of detections 0: set it to 1 or more'),
        (dict(classes='3'), "invalid classes '3': set a list of names or numbers"),
        (dict(classes=['dog']), "there is no class 'dog'. There are 10 classes: 0, 1, 2"),
    ],
)
def test_invalid_limits_are_named(model, digits, options, message):
    with pytest.raises(UserError, match=message):
        model(np.zeros((32, 32, 3), np.uint8), **options)
    with pytest.raises(UserError, match=message):
        model.stream(digits / 'val', **options)


def test_nothing_gives_nothing(model):
    assert model([], routing=True) == model([]) == []


def test_routing_is_given_for_dynamic_models_only(model, digits):
    path = sorted((digits / 'val').iterdir())[0]
    prediction = model(path, routing=True)
    assert len(prediction.routing) == 6
    assert all(weights.shape == (4,) and (weights >= 0).all() for weights in prediction.routing.values())
    assert prediction.rows()['routing'].keys() == prediction.routing.keys()
    plain = model(path)
    assert plain.routing is None
    assert 'routing' not in plain.rows()
    assert np.array_equal(prediction.draw()[:, :320], plain.draw())
    assert prediction.draw().shape == (320, 480, 3)
    static = mmdyn.load_model('yolo11n_digits', device='cpu')
    with pytest.raises(UserError, match='there is no routing to show: it takes a checkpoint of a dynamic model'):
        static(path, routing=True)
