"""A data set that every task learns in seconds: red, green and blue plates on grey noise."""

import json
from pathlib import Path

import cv2
import numpy as np

SIDE = 160  # pixels of the width


def make_plates(root: Path, splits: dict[str, int]) -> Path:
    """Plates, some cut by the edge, in COCO's format with outlines and keypoints: ``SPLIT.json`` and ``SPLIT/``."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        content = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in enumerate('rgb')])
        (root / split).mkdir(parents=True)
        for i in range(count):
            height, width = int(rng.integers(90, 161)), SIDE
            image = rng.integers(90, 160, (height, width, 1), dtype=np.uint8).repeat(3, 2)
            for _ in range(rng.integers(1, 5)):
                w, h = rng.integers(15, 70, 2)
                x, y, label = rng.integers(-10, width - 20), rng.integers(-10, height - 20), int(rng.integers(3))
                x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
                image[y1:y2, x1:x2, 2 - label] = 240
                box = [int(v) for v in (x1, y1, x2 - x1, y2 - y1)]
                annotation = dict(image_id=i, category_id=label, bbox=box, area=box[2] * box[3], iscrowd=0)
                corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
                annotation['segmentation'] = [[float(v) for corner in corners for v in corner]]
                places = [*corners, ((x1 + x2) / 2, (y1 + y2) / 2)]
                annotation.update(keypoints=[float(v) for place in places for v in (*place, 2)], num_keypoints=5)
                content['annotations'].append(annotation)
            cv2.imwrite(str(root / split / f'{i}.png'), image)
            content['images'].append(dict(id=i, file_name=f'{i}.png', width=width, height=height))
        for number, annotation in enumerate(content['annotations'], 1):
            annotation['id'] = number
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def make_plate_folders(root: Path, splits: dict[str, int]) -> Path:
    """One plate an image, in a folder of its colour: ``SPLIT/COLOUR/``."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for i in range(count):
            image = rng.integers(90, 160, (64, 64, 1), dtype=np.uint8).repeat(3, 2)
            (x, y), (w, h) = rng.integers(0, 30, 2), rng.integers(15, 34, 2)
            label = i % 3
            image[y : y + h, x : x + w, 2 - label] = 240
            folder = root / split / 'rgb'[label]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{i}.png'), image)
    return root
