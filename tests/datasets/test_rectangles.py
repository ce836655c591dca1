"""Rectangles of validation images: by the image alone, in batches of one shape, each image once."""

import numpy as np
import pytest
from torch.utils.data import SequentialSampler

from mmdyn.datasets import ImageShapePolicy, SameShapeBatchSampler

SIZES = [(640, 480), (480, 640), (500, 500), (640, 427), (640, 480), (1000, 100), (333, 500)]  # width, height


def infos():
    return [dict(index=i, width=w, height=h) for i, (w, h) in enumerate(SIZES)]


class Images(list):
    """A data set, as far as a sampler asks."""

    def get_data_info(self, index):
        return self[index]


@pytest.fixture
def sampler():
    images = Images(ImageShapePolicy(img_size=640)(infos()))
    sampler = SequentialSampler(images)
    sampler.dataset = images
    return sampler


def test_an_image_has_its_own_rectangle_whatever_is_beside_it():
    alone = {i: ImageShapePolicy(img_size=640)([info])[0]['batch_shape'] for i, info in enumerate(infos())}
    for info in ImageShapePolicy(img_size=640)(infos()):
        assert np.array_equal(info['batch_shape'], alone[info['index']])
    assert tuple(alone[0]) == (512, 672)  # 480 / 32 + 0.5 and 640 / 32 + 0.5, rounded up
    assert tuple(alone[2]) == (672, 672)


def test_batches_are_of_one_shape_and_hold_every_image(sampler):
    batches = list(SameShapeBatchSampler(sampler, 2))
    shapes = SameShapeBatchSampler(sampler, 2).shapes
    assert [i for batch in batches for i in batch] == list(range(len(SIZES)))
    assert all(len({shapes[i] for i in batch}) == 1 and len(batch) <= 2 for batch in batches)
    assert len(SameShapeBatchSampler(sampler, 2)) == len(batches) == 6
    assert len(SameShapeBatchSampler(sampler, 1)) == 7


def test_images_without_rectangles_fill_the_batch(sampler):
    for index in range(len(SIZES)):
        sampler.dataset.get_data_info(index).pop('batch_shape')
    assert list(SameShapeBatchSampler(sampler, 3)) == [[0, 1, 2], [3, 4, 5], [6]]
