"""Evaluation of boxes at the size of COCO's validation set: 5,000 images with 100 predictions each, here and there.

mmdyn and pycocotools begin with annotations and predictions in memory and end with the twelve figures, which must be
the same. The report (curves, confusion, errors) is timed apart.
"""

import contextlib
import io
import sys
import time

import numpy as np
from _timing import benchmark_parser, write_json

EXAMPLE = """  python benchmarks/evaluation.py
  python benchmarks/evaluation.py --short     # 500 images"""
IMAGES, OBJECTS, CLASSES, FOUND = 5000, 7, 80, 100
WIDTH, HEIGHT = 640, 480


def made_up(count: int):
    """Annotations as a table, and predictions: some near an object, the others anywhere."""
    from mmdyn.annotations import Annotations
    from mmdyn.metrics.coco_evaluation import Predicted

    rng = np.random.default_rng(0)
    boxes = np.column_stack((rng.uniform(0, 400, (count * OBJECTS, 2)), rng.uniform(8, 200, (count * OBJECTS, 2))))
    labels = rng.integers(CLASSES, size=count * OBJECTS)
    table = Annotations.of(
        files=[f'{i}.jpg' for i in range(count)],
        sizes=np.tile((WIDTH, HEIGHT), (count, 1)),
        images=np.repeat(np.arange(count), OBJECTS),
        boxes=boxes,
        labels=labels,
        classes=[f'class {i}' for i in range(CLASSES)],
    )
    predictions = []
    for i in range(count):
        own = slice(i * OBJECTS, (i + 1) * OBJECTS)
        near = np.repeat(boxes[own], 2, 0) + rng.normal(0, 6, (2 * OBJECTS, 4))
        rest = FOUND - len(near)
        other = np.column_stack((rng.uniform(0, 400, (rest, 2)), rng.uniform(8, 200, (rest, 2))))
        corners = np.concatenate((near, other))
        corners[:, 2:] = corners[:, :2] + np.maximum(corners[:, 2:], 1)
        classes = np.concatenate((np.repeat(labels[own], 2), rng.integers(CLASSES, size=rest)))
        scores = np.concatenate((rng.beta(4, 2, len(near)), rng.beta(1, 6, rest)))
        predictions.append(Predicted(i, corners.astype(np.float32), scores, classes))
    return table, predictions


def by_pycocotools(table, predictions) -> np.ndarray:
    """The twelve figures of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = table.as_coco()
        truth.createIndex()
        ids = [image['id'] for image in truth.dataset['images']]
        categories = [category['id'] for category in truth.dataset['categories']]
        rows = [
            dict(image_id=ids[p.row], category_id=categories[label], bbox=box, score=score)
            for p in predictions
            for box, score, label in zip(
                np.hstack((p.boxes[:, :2], p.boxes[:, 2:] - p.boxes[:, :2])).tolist(),
                p.scores.tolist(),
                p.labels.tolist(),
                strict=True,
            )
        ]
        evaluation = COCOeval(truth, truth.loadRes(rows), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def main(arguments: list[str]) -> int:
    """Measure, compare, write."""
    parser = benchmark_parser(__doc__, EXAMPLE)
    args = parser.parse_args(arguments)
    from mmdyn.metrics.coco_evaluation import CocoEvaluation
    from mmdyn.reports import make_report

    table, predictions = made_up(IMAGES // 10 if args.short else IMAGES)
    seconds: dict[str, list[float]] = {'mmdyn': [], 'pycocotools': [], 'report': []}
    for _ in range(1 if args.short else 3):
        start = time.perf_counter()
        evaluation = CocoEvaluation(table, predictions)
        figures = evaluation.figures()
        seconds['mmdyn'].append(time.perf_counter() - start)
        start = time.perf_counter()
        make_report(evaluation)
        seconds['report'].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = by_pycocotools(table, predictions)
        seconds['pycocotools'].append(time.perf_counter() - start)
    ours = [figures[key] for key in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')]
    difference = float(np.abs(np.array(ours) - theirs[:6]).max())
    median = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    print(' '.join(f'{name} {value:.1f} s' for name, value in median.items()), f'largest difference {difference:.1g}')
    stem = 'evaluation_short' if args.short else 'evaluation'
    write_json(args.out / f'{stem}.json', dict(images=len(predictions), seconds=seconds, difference=difference))
    return 0 if difference < 1e-6 else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
