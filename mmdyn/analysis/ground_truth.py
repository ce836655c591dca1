"""The objects of a data set as detections, and pictures of them beside predictions."""

from typing import Any

import numpy as np
from mmengine.config import Config
from mmyolo.registry import DATASETS

from mmdyn.datasets import LoadImage
from mmdyn.datasets.oriented import corners_of_instance, oriented_box
from mmdyn.datasets.pixels import read_pixels
from mmdyn.inference.load import load_model
from mmdyn.inference.onnx_detector import Detections, draw

from .pictures import CocoMasks


def labelled(dataset: Any, index: int) -> tuple[np.ndarray, Detections]:
    """An image of a data set as it is in its file, and its objects, each with a score of 1.

    Args:
        dataset: A data set of :mod:`mmdyn.datasets`.
        index: Index of the image.

    Returns:
        The image (H, W, channels), and boxes, labels, and the masks, keypoints or oriented boxes that the data set
        reads.
    """
    load = next((step for step in dataset.pipeline.transforms if isinstance(step, LoadImage)), LoadImage())
    info = dataset.get_data_info(index)
    image, instances = read_pixels(info['img_path'], load.channels, load.to_float32), info['instances']
    boxes, labels = ([instance[key] for instance in instances] for key in ('bbox', 'bbox_label'))
    objects = Detections(np.array(boxes, float).reshape(-1, 4), np.ones(len(labels)), np.array(labels, int))
    if dataset.corners:
        height, width = image.shape[:2]
        turned = [oriented_box(corners_of_instance(i, height, width, info['img_path'])) for i in instances]
        objects = objects._replace(oriented_boxes=np.array(turned).reshape(-1, 5))
    elif dataset.outlines:
        masks = CocoMasks([i.get('mask') for i in instances], image.shape[:2], info['img_path'])
        objects = objects._replace(masks=masks)
    if dataset.keypoints[0]:
        points = np.array([i['keypoints'] for i in instances]).reshape(len(labels), dataset.keypoints[0], 3)
        objects = objects._replace(keypoints=points[..., :2], keypoint_scores=points[..., 2] > 0)
    return image, objects


def prediction_grid(
    cfg: Config,
    checkpoint: str,
    indices: list[int],
    columns: int = 2,
    score: float = 0.3,
    device: str | None = None,
) -> np.ndarray:
    """Draw ground truth (left) and predictions (right) of some images of the test set, in the terms of the task.

    Args:
        cfg: Config of the run.
        checkpoint: Checkpoint file.
        indices: Indices of the images in the test set.
        columns: Number of pairs in a row.
        score: Score threshold of the predictions that are drawn.
        device: Device of the model; by default a GPU if available.

    Returns:
        The grid as a BGR uint8 array; smaller images have a white border.
    """
    model = load_model(cfg, checkpoint, device)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    tiles = []
    for index in indices:
        image, objects = labelled(dataset, index)
        names = [dataset.metainfo['classes'][label] for label in objects.labels]
        tiles += [draw(image, objects, names, dataset.annotations.skeleton), model(image, score).draw()]
    height, width = np.max([tile.shape[:2] for tile in tiles], 0)
    tiles = [_padded(tile, height, width) for tile in tiles]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % (2 * columns))
    return np.vstack([np.hstack(tiles[i : i + 2 * columns]) for i in range(0, len(tiles), 2 * columns)])


def _padded(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    down, across = height - picture.shape[0], width - picture.shape[1]
    return np.pad(picture, ((0, down), (0, across), (0, 0)), constant_values=255)
