"""Images of a config's data sets, prepared as in testing."""

import copy
import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope
from mmyolo.registry import DATASETS as YOLO_DATASETS
from torch import Tensor, nn
from tqdm import tqdm

from mmdyn.datasets import ArrayDataset
from mmdyn.errors import UserError

from .image_size import innermost_dataset
from .messages import config_errors


def dataset_images(
    cfg: Config, preprocessor: nn.Module, split: Literal['train', 'val', 'test'], number: int, doing: str, seed: int = 0
) -> Iterator[tuple[Tensor, DetDataSample]]:
    """Random images of a data set, or of the first one of a concatenated data set, with a progress bar.

    Args:
        cfg: Config with the data loader of the split, and ``test_dataloader``, whose pipeline prepares the images.
        preprocessor: The detector's ``data_preprocessor``.
        split: Split of the data loader.
        number: Number of images; all images if the set is smaller.
        doing: Text of the progress bar.
        seed: Seed of the random choice.

    Yields:
        The input of the model, (1, 3, H, W), and the sample with its ground truth.

    Raises:
        UserError: ``number`` is less than one, the config has no such data loader, or the set is empty.
    """
    if number < 1:
        raise UserError(f'the number of images must be at least 1, got {number}')
    described = dataset_of_split(cfg, split)
    described.pipeline = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
    described.test_mode = True  # keep images without boxes
    with config_errors():
        dataset = DATASETS.build(described)
    if len(dataset) == 0:
        raise UserError(f'the data set {described.get("ann_file", "")} has no image: set one with images')
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:number]
    for index in tqdm(order.tolist(), desc=doing, unit='image'):
        data = dataset[index]
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        yield preprocessor(batch, False)['inputs'], data['data_samples']


def build_quietly(described: ConfigDict, **changes: Any) -> Any:
    """Build a data set to look at its annotations; what it would log is left to the one that is used."""
    logging.disable(logging.WARNING)
    try:
        return DATASETS.build(ConfigDict(copy.deepcopy(described)) | dict(changes, cache=None))
    finally:
        logging.disable(logging.NOTSET)


def is_array_dataset(described: ConfigDict) -> bool:
    """Whether a data set is one of mmdyn's, whose annotations are arrays; the scope of the config is the default."""
    kind = described.get('type')
    kind = YOLO_DATASETS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, ArrayDataset)


def dataset_of_split(cfg: Config, split: Literal['train', 'val', 'test']) -> ConfigDict:
    """A copy of a data set's config, which can be built: the scope of the config is the default from here on.

    Args:
        cfg: Config.
        split: Split of the data loader.

    Raises:
        UserError: The config has no such data loader.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'the config has no {split}_dataloader: set it, or choose another split')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    described = copy.deepcopy(innermost_dataset(loader))
    described.pop('cache', None)  # for some of its images only
    return described


def calibration_images(cfg: Config, preprocessor: nn.Module, number: int) -> Iterator[Tensor]:
    """Random images of the training set.

    Args:
        cfg: Config, as in :func:`dataset_images`.
        preprocessor: The detector's ``data_preprocessor``.
        number: Number of images.

    Yields:
        The input of the model, (1, 3, H, W).

    Raises:
        UserError: As in :func:`dataset_images`.
    """
    yield from (image for image, _ in dataset_images(cfg, preprocessor, 'train', number, 'calibrating'))
