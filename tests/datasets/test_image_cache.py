"""Cached images are those that the pipeline would have read and resized, to the last bit, wherever they are kept."""

import os
import pickle

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from mmyolo.registry import TRANSFORMS

from mmdyn.datasets import ImageCache, image_cache
from mmdyn.errors import UserError
from mmdyn.running import load_config
from mmdyn.running.common_options import set_common_options
from mmdyn.running.image_size import innermost_dataset


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'cache'))


def build(digits, split, cache, **options):
    cfg = load_config('yolo11n_coco')
    set_common_options(cfg, data=digits, imgsz=(256, 192), cache=cache, **options)
    described = innermost_dataset(cfg[f'{split}_dataloader'])
    with DefaultScope.overwrite_default_scope('mmyolo'):
        return DATASETS.build(described)


def assert_same(one, other):
    for key in ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'pad_param'):
        np.testing.assert_array_equal(one['data_samples'].get(key), other['data_samples'].get(key))
    np.testing.assert_array_equal(one['inputs'], other['inputs'])
    np.testing.assert_array_equal(
        one['data_samples'].gt_instances.bboxes.tensor, other['data_samples'].gt_instances.bboxes.tensor
    )


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('cache', ['ram', 'disk'])
def test_samples_are_the_same(digits, split, cache):
    plain, cached = build(digits, split, None), build(digits, split, cache)
    assert len(plain) == len(cached)
    for index in range(6):
        samples = []
        for dataset in (plain, cached):
            np.random.seed(index)
            samples.append(dataset[index])
        assert_same(*samples)
    before = cached.image_cache.pixels.copy()
    for index in range(6):
        cached[index]
    assert np.array_equal(before, cached.image_cache.pixels)


def test_a_file_is_made_once_and_again_when_an_image_changes(digits, tmp_path, monkeypatch):
    import shutil

    root = shutil.copytree(digits, tmp_path / 'digits')
    filled = []
    fill = ImageCache._fill
    monkeypatch.setattr(ImageCache, '_fill', lambda self, *rest: (filled.append(self), fill(self, *rest)))
    build(root, 'val', 'disk')
    build(root, 'val', 'disk')
    assert len(filled) == 1
    (file,) = (tmp_path / 'cache').glob('*.pixels')
    assert file.stat().st_size == 8 * 192 * 192 * 3
    with file.open('rb+') as damaged:
        damaged.truncate(1000)
    build(root, 'val', 'disk')
    assert len(filled) == 2
    os.utime(next((root / 'val').iterdir()), (1, 1))
    build(root, 'val', 'disk')
    assert len(filled) == 3
    assert len(list((tmp_path / 'cache').glob('*.pixels'))) == 1


def test_without_room_nothing_is_cached(digits, monkeypatch):
    lines = []
    monkeypatch.setattr(image_cache, '_free_memory', lambda: 1000)
    monkeypatch.setattr(image_cache, 'print_log', lambda message, *_: lines.append(message))
    dataset = build(digits, 'train', 'ram')
    assert lines[-1].endswith('are not cached: they need 0.00 GiB of memory, 0.00 GiB are free')
    assert dataset[0]['inputs'].shape == (3, 256, 192)


def test_a_folder_that_cannot_be_written_to_means_no_cache(digits, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'file' / 'cache'))
    dataset = build(digits, 'val', 'disk')
    assert dataset.cached_rows is None
    assert dataset[0]['inputs'].shape[0] == 3


def test_a_pipeline_that_does_not_fit_is_an_error(digits):
    described = dict(
        type='CheckedCocoDataset', data_root=str(digits), ann_file='annotations/val.json', data_prefix=dict(img='val/')
    )
    with (
        DefaultScope.overwrite_default_scope('mmyolo'),
        pytest.raises(UserError, match='needs a pipeline of LoadImage, LoadAnnotations and'),
    ):
        DATASETS.build(described | dict(cache='ram', pipeline=[dict(type='LoadImageFromFile')]))
    with pytest.raises(ValueError, match="cache must be None, 'ram' or 'disk', got 'gpu'"):
        DATASETS.build(dict(described, type='mmyolo.CheckedCocoDataset', cache='gpu'))


def test_another_size_after_the_cache_is_an_error(digits):
    dataset = build(digits, 'val', 'ram')
    results = dataset.pipeline.transforms[0](dataset.get_data_info(0))
    resize = TRANSFORMS.build(dict(type='LongSideResize', scale=(320, 320)))
    with pytest.raises(UserError, match='images of 192 x 192 pixels where a step of the pipeline resizes to 320 x 320'):
        resize(results)


def test_a_step_between_loading_and_resizing_is_an_error(digits):
    steps = [
        dict(type='LoadImage'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='mmdet.RandomFlip', prob=1.0),
    ]
    described = dict(
        type='CheckedCocoDataset',
        data_root=str(digits),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        pipeline=[*steps, dict(type='LongSideResize', scale=(160, 160))],
        cache='ram',
    )
    with DefaultScope.overwrite_default_scope('mmyolo'):
        with pytest.raises(UserError, match='before all other steps'):
            DATASETS.build(described)
        described['pipeline'].pop(2)
        assert DATASETS.build(described)[0]['img'].shape[:2] == (160, 160)


@pytest.mark.parametrize('cache', ['ram', 'disk'])
def test_a_cached_data_set_reaches_spawned_workers(digits, cache):
    dataset = build(digits, 'val', cache)
    assert_same(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


def test_what_a_killed_process_left_is_removed(digits, tmp_path):
    build(digits, 'val', 'disk')
    (file,) = (tmp_path / 'cache').glob('*.pixels')
    left = file.with_name(f'.{file.stem}.77.partial.pixels')
    file.rename(left)
    build(digits, 'val', 'disk')
    assert [p.name for p in (tmp_path / 'cache').glob('*.pixels')] == [file.name]


def test_processes_of_a_machine_share_its_memory(digits, monkeypatch):
    needed = 24 * 192 * 192 * 3
    monkeypatch.setattr(image_cache, '_free_memory', lambda: 2 * needed)
    assert build(digits, 'train', 'ram').cached_rows is not None
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert build(digits, 'train', 'ram').cached_rows is None
