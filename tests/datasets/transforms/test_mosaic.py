"""Mosaics from a buffer: boxes stay on their objects, one image is read for each, the buffer is never written to."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdyn.datasets import BufferedMosaic, YOLO11RandomAffine

SIZES = [(60, 80), (80, 60), (64, 64), (33, 97), (120, 90), (50, 50)]  # height, width


class Images:
    """Images of one colour, whose only box is all of them and whose label is the colour."""

    def __init__(self, channels=(3,)):
        self.read = 0
        self.channels = channels

    def __len__(self):
        return len(SIZES)

    def get_data_info(self, index):
        return dict(index=index % len(SIZES))

    def load(self, info):
        self.read += 1
        height, width = SIZES[info['index']]
        return dict(
            info,
            img=np.full((height, width, *self.channels), info['index'] + 1, np.uint8),
            img_shape=(height, width),
            gt_bboxes=HorizontalBoxes(torch.tensor([[0.0, 0.0, width, height]])),
            gt_bboxes_labels=np.array([info['index'] + 1]),
            gt_ignore_flags=np.array([False]),
        )


def make(images, **kwargs):
    mosaic = BufferedMosaic(img_scale=(64, 64), pad_val=0, **kwargs)
    mosaic.pre_transform = images.load  # what the config's loading steps do
    return mosaic


def samples(images, mosaic, count):
    for index in range(count):
        yield mosaic(dict(images.load(images.get_data_info(index)), dataset=images))


def test_boxes_stay_on_their_objects():
    images = Images()
    np.random.seed(0)
    for result in samples(images, make(images), 40):
        assert result['img'].shape == (128, 128, 3)
        assert len(result['gt_bboxes']) == len(result['gt_bboxes_labels']) == len(result['gt_ignore_flags']) == 4
        for box, label in zip(result['gt_bboxes'].numpy(), result['gt_bboxes_labels'], strict=True):
            left, top, right, bottom = np.round(box).astype(int)
            inside = result['img'][max(top, 0) + 1 : bottom - 1, max(left, 0) + 1 : right - 1]
            assert (inside == label).all()
        shown = {int(value) for value in np.unique(result['img'])} - {0}
        assert shown <= set(map(int, result['gt_bboxes_labels']))
        assert 'mix_results' not in result
        assert isinstance(result['dataset'], Images)


def test_one_image_is_read_for_a_mosaic():
    images = Images()
    for _ in samples(images, make(images), 20):
        pass
    assert images.read == 20 + 3 * 3  # the first three had nobody to go with


def test_the_buffer_keeps_the_last_images_as_they_were():
    images = Images()
    mosaic = make(images, buffer_size=5)
    list(samples(images, mosaic, 9))
    assert [kept['index'] for kept in mosaic.buffer] == [4, 5, 0, 1, 2]
    list(samples(images, mosaic, 60))
    for kept in mosaic.buffer:
        assert np.unique(kept['img']) == kept['index'] + 1
        assert max(kept['img'].shape) == 64
        expected = np.array([[0, 0, *kept['img'].shape[1::-1]]])
        assert kept['gt_bboxes'].numpy() == pytest.approx(expected, abs=1)
        assert 'dataset' not in kept


def test_probability():
    images = Images()
    alone = next(samples(images, make(images, prob=0.0), 1))
    assert (alone['img'].shape, alone['mosaic']) == ((64, 64, 3), False)
    results = list(samples(images, make(images, prob=0.5), 200))
    assert 60 < sum(r['img'].shape == (128, 128, 3) for r in results) < 140


def test_buffer_of_less_than_four_is_refused():
    with pytest.raises(ValueError, match='buffer_size must be at least 4, got 3'):
        BufferedMosaic(3)


AFFINE = dict(max_rotate_degree=0.0, max_shear_degree=0.0, scaling_ratio_range=(0.9, 1.1), border=(-32, -32))


@pytest.mark.parametrize('prob', [0.0, 0.5])
def test_images_without_a_mosaic_keep_their_boxes(prob):
    """The border of a mosaic is not cut off an image that has none."""
    images, affine = Images(), YOLO11RandomAffine(**AFFINE, border_val=(0, 0, 0))
    np.random.seed(0)
    for result in samples(images, make(images, prob=prob), 40):
        alone = not result.get('mosaic', True)
        result = affine(result)
        assert result['img'].shape == (64, 64, 3)
        assert 'mosaic' not in result
        if alone:
            assert len(result['gt_bboxes']) == 1
            left, top, right, bottom = np.round(result['gt_bboxes'].numpy()[0]).astype(int)
            middle = result['img'][(top + bottom) // 2, (left + right) // 2]
            assert (middle == result['gt_bboxes_labels'][0]).all()


@pytest.mark.parametrize('channels', [(), (1,), (4,)], ids=['grey', 'one', 'four'])
@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_images_of_other_channels(channels, prob):
    images, affine = Images(channels), YOLO11RandomAffine(**AFFINE, border_val=(9, 9, 9))
    mosaic = make(images, prob=prob)
    mosaic.letterbox.pad_val = dict(img=9)
    np.random.seed(1)
    for result in samples(images, mosaic, 12):
        assert result['img'].shape[2:] == (channels if prob else result['img'].shape[2:])
        warped = affine(result)['img']
        assert warped.reshape(64, 64, -1).shape[2] == (channels or (1,))[0]
        if channels == (4,):  # all channels are alike, grey borders too
            assert (warped == warped[..., :1]).all()
