"""A page of a data set: images before and after the pipeline, statistics of the labels, what the checks say."""

from pathlib import Path
from typing import Any, Literal

import cv2
import matplotlib
import numpy as np
from mmcv.transforms import LoadAnnotations, Resize
from mmengine.config import Config
from mmyolo.registry import DATASETS
from tqdm import tqdm

from mmdyn.errors import UserError
from mmdyn.files import render_page, write_image, write_text
from mmdyn.inference.onnx_detector import Detections
from mmdyn.running.dataset_images import dataset_of_split
from mmdyn.running.testing import task_of_config

from .ground_truth import labelled
from .pictures import draw_small, figure_image

matplotlib.use('Agg')
from matplotlib import pyplot as plt

HEIGHT = 320  # of a picture on the page, in pixels
SHOWN_CLASSES = 40
NAMED_OBJECTS = 30  # of an image; with more of them, names would hide what is there
NOTES = {  # of annotations, in words
    'background': 'images have no object',
    'orphans': 'label files have no image',
    'repeated': 'repeated lines are left out',
    'clipped': 'boxes were clipped to their image',
    'dropped': 'boxes without area, or outside of their image, were dropped',
}


def write_page(
    cfg: Config, split: Literal['train', 'val', 'test'], folder: str | Path, count: int = 12, seed: int = 0
) -> Path:
    """Draw images of a data set before and after its pipeline, and its statistics.

    Args:
        cfg: Config.
        split: ``'train'``, ``'val'`` or ``'test'``.
        folder: Where ``index.html`` and the pictures go.
        count: Images that are drawn.
        seed: Seed of the choice and of the augmentation.

    Returns:
        The page.

    Raises:
        UserError: The config has no such data, or the data is invalid.
    """
    if count < 1:
        raise UserError(f'invalid --count {count}: set it to 1 or more')
    if task_of_config(cfg).name == 'classify':
        raise UserError('browse makes a page of objects, and images of a classifier have none: look at their folders')
    folder = Path(folder)
    dataset = DATASETS.build(dataset_of_split(cfg, split))
    np.random.seed(seed)
    chosen = np.sort(np.random.permutation(len(dataset))[:count]).tolist()
    pairs = []
    for index in tqdm(chosen, desc='drawing', unit='image'):
        info = dataset.get_data_info(index)
        image, objects = labelled(dataset, index)
        before, after = (_drawn(*each, dataset) for each in ((image, objects), after_pipeline(dataset, index, objects)))
        name = f'pictures/{index:06d}.jpg'
        write_image(folder / name, np.hstack([before, np.full((HEIGHT, 12, 3), 255, np.uint8), after]))
        pairs.append(dict(file=name, name=Path(info['img_path']).name, objects=len(info['instances'])))
    write_image(folder / 'statistics.png', draw_statistics(dataset))
    page = folder / 'index.html'
    values = dict(split=split, pairs=pairs, facts=facts(dataset), source=dataset.source)
    write_text(page, render_page(Path(__file__).with_name('browse.html.jinja'), **values))
    return page


def facts(dataset: Any) -> list[str]:
    """What there is to say of a data set: counts, and what the checks left out.

    Args:
        dataset: An :class:`mmdyn.datasets.ArrayDataset`.
    """
    table = dataset.annotations
    per_image = np.diff(table.starts)
    lines = [
        f'{len(dataset):,} images are used of {len(table):,}; {len(table.boxes):,} objects of '
        f'{len(table.classes)} class{"es" if len(table.classes) != 1 else ""}.',
        f'Objects an image: {per_image.mean():.1f} on average, {per_image.max()} at most; '
        f'{int((per_image == 0).sum()):,} images have none.',
    ]
    bad, skipped = int((~table.trainable).sum()), len(dataset.metainfo['skipped_images'])
    if bad:
        lines.append(f'{bad:,} boxes without area, or outside of their image, are not trained on.')
    if skipped:
        lines.append(f'{skipped:,} images that are missing or broken are left out.')
    if crowd := int(table.crowd.sum()):
        lines.append(f'{crowd:,} objects are groups (iscrowd, or difficult).')
    if dataset.outlines and (without := int((~table.outlined & ~table.crowd).sum())):
        lines.append(f'{without:,} objects have no outline, and are not trained on.')
    if dataset.keypoints[0] and dataset.metainfo['flip_indices'] is None:
        lines.append('Images are not mirrored, as nothing says which keypoint becomes which: set flip_idx.')
    lines += [f'{value:,} {NOTES.get(key, key)}.' for key, value in table.notes.items() if value]
    return lines


def draw_statistics(dataset: Any) -> np.ndarray:
    """Objects by class, sizes of boxes, and objects by image, as BGR bytes.

    Args:
        dataset: As for :func:`facts`.
    """
    table = dataset.annotations
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), dpi=110, constrained_layout=True)
    counts = np.bincount(table.labels, minlength=len(table.classes))
    order = np.argsort(-counts, kind='stable')[:SHOWN_CLASSES]
    left.bar(range(len(order)), counts[order])
    left.set_xticks(range(len(order)), [table.classes[i] for i in order], rotation=60, ha='right', fontsize=8)
    left.set(title='objects by class' + (f', the first {SHOWN_CLASSES}' if len(counts) > SHOWN_CLASSES else ''))
    sides = np.sqrt(np.maximum(table.boxes[:, 2] * table.boxes[:, 3], 1))
    middle.hist(sides, bins=np.geomspace(1, max(2.0, sides.max(initial=2.0)), 40))
    for limit, text in ((32, 'small'), (96, 'medium')):
        middle.axvline(limit, color='0.4', linewidth=0.8)
        middle.text(limit, 0.98, f'{text} ', ha='right', va='top', fontsize=8, transform=middle.get_xaxis_transform())
    middle.set(xscale='log', title='side of a square of the area of the box', xlabel='pixels')
    per_image = np.diff(table.starts)
    right.hist(per_image, bins=np.arange(per_image.max() + 2) - 0.5)
    right.set(title='objects by image', xlabel='objects', ylabel='images')
    for axis in (left, middle, right):
        axis.grid(axis='y', alpha=0.3)
    return figure_image(figure)


def after_pipeline(dataset: Any, index: int, objects: Detections) -> tuple[np.ndarray, Detections]:
    """An image and its objects as the pipeline gives them to the model.

    Args:
        dataset: As for :func:`facts`.
        index: Index of the image.
        objects: As they are in the file.
    """
    sample = dataset[index]
    instances, image = sample['data_samples'].gt_instances, sample['inputs'].permute(1, 2, 0).numpy()
    steps = [type(step) for step in dataset.pipeline.transforms]
    load, resize = (
        next((i for i, step in enumerate(steps) if issubclass(step, kind)), len(steps))
        for kind in (LoadAnnotations, Resize)
    )
    if resize < load:  # for a test: labels stay as they are in the file
        return image, _placed(objects, sample['data_samples'].metainfo, image.shape[:2])
    boxes = instances.bboxes.tensor if hasattr(instances.bboxes, 'tensor') else instances.bboxes
    objects = Detections(boxes.numpy(), np.ones(len(boxes)), instances.labels.numpy())
    if 'gt_planes' in sample['data_samples']:  # as the loss sees them: a quarter of the size, the smallest on top
        plane = sample['data_samples'].gt_planes.planes[0].numpy()
        plane = cv2.resize(plane.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        objects = objects._replace(masks=plane == np.arange(1, len(boxes) + 1)[:, None, None])
    if 'oriented_boxes' in instances:
        objects = objects._replace(oriented_boxes=instances.oriented_boxes.numpy())
    if 'keypoints' in instances:
        points, seen = instances.keypoints.numpy(), instances.keypoints_visible.numpy() > 0
        objects = objects._replace(keypoints=points, keypoint_scores=seen)
    return image, objects


def _placed(objects: Detections, meta: dict, size: tuple[int, int]) -> Detections:
    """Objects of a file in its image after resizing and padding, which has this height and width."""
    scale = np.array(meta['scale_factor'])
    corner = np.zeros(2) if meta.get('pad_param') is None else np.array(meta['pad_param'])[[2, 0]]
    boxes = objects.boxes * np.tile(scale, 2) + np.tile(corner, 2)
    objects = objects._replace(boxes=boxes)
    if objects.keypoints is not None:
        objects = objects._replace(keypoints=objects.keypoints * scale + corner)
    if objects.oriented_boxes is not None:
        turned = objects.oriented_boxes
        centres, sides = turned[:, :2] * scale + corner, turned[:, 2:4] * scale.min()
        objects = objects._replace(oriented_boxes=np.concatenate([centres, sides, turned[:, 4:]], 1))
    if objects.masks is not None:
        matrix = np.column_stack([np.diag(scale), corner])
        masks = [cv2.warpAffine(mask.astype(np.uint8), matrix, size[::-1]) > 0 for mask in objects.masks]
        objects = objects._replace(masks=masks)
    return objects


def _drawn(image: np.ndarray, objects: Detections, dataset: Any) -> np.ndarray:
    classes = dataset.metainfo['classes']
    named = len(classes) > 1 and len(objects.labels) <= NAMED_OBJECTS
    names = [classes[label] if named else '' for label in objects.labels]
    return draw_small(image, objects, names, HEIGHT, skeleton=dataset.annotations.skeleton)
