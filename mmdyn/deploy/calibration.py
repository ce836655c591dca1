"""Calibration: real images of the training set, prepared as in testing."""

import copy
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor, nn
from tqdm import tqdm

from mmdyn.engine.launch import config_errors
from mmdyn.errors import UserError


def calibration_images(cfg: Config, preprocessor: nn.Module, number: int, seed: int = 0) -> Iterator[Tensor]:
    """Random images of the training set, of the first one where several are joined, with a progress bar.

    Args:
        cfg: Config with ``train_dataloader`` and ``test_dataloader``.
        preprocessor: The detector's ``data_preprocessor``.
        number: How many; all of a smaller set.
        seed: Which.

    Yields:
        What the model is given, (1, 3, H, W).

    Raises:
        UserError: ``number`` is less than one, or the set is empty.
    """
    if number < 1:
        raise UserError(f'calibration needs at least one image, got {number}')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    described = copy.deepcopy(cfg.train_dataloader.dataset)
    while 'ann_file' not in described and (described.get('dataset') or described.get('datasets')):  # repeated, joined
        described = described.get('dataset') or described.datasets[0]
    described.pipeline = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
    described.test_mode = True  # no image is left out for its boxes
    with config_errors():
        dataset = DATASETS.build(described)
    if len(dataset) == 0:
        raise UserError(f'the calibration set {described.get("ann_file", "")} has no image: give one with images')
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:number]
    for index in tqdm(order.tolist(), desc='calibrating', unit='image'):
        data = dataset[index]
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        yield preprocessor(batch, False)['inputs']
