"""Tiles of large images: every pixel is in one, and objects that a tile cuts are kept or dropped by their share."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest

from mmdyn.datasets import find_data
from mmdyn.datasets.tiling import tile_starts, write_tiles
from mmdyn.errors import UserError

BOX = '{0} 20 {1} 20 {1} 40 {0} 40 ship 0'


@pytest.mark.parametrize('length', [1, 100, 101, 180, 181, 999])
def test_tiles_cover_a_side_and_share_pixels(length):
    starts = tile_starts(length, 100, 20)
    covered = np.zeros(length, int)
    for start in starts:
        assert start == 0 or start + 100 <= length
        covered[start : start + 100] += 1
    assert covered.all()
    assert all(b <= a + 80 for a, b in pairwise(starts))


@pytest.fixture
def dota(tmp_path):
    for split in ('train', 'val'):
        for name in ('images', 'labelTxt'):
            (tmp_path / split / name).mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 255, (100, 180, 3), np.uint8)
        cv2.imwrite(str(tmp_path / split / 'images/P1.png'), image)
        lines = [BOX.format(10, 30), BOX.format(70, 110)]  # the second one has 3/4 in the first tile, 3/4 in the second
        (tmp_path / split / 'labelTxt/P1.txt').write_text('\n'.join(lines))
    return tmp_path


@pytest.mark.parametrize(('share', 'objects'), [(0.7, 3), (0.8, 1)])
def test_objects_that_are_cut(dota, tmp_path, share, objects):
    made = write_tiles(find_data(dota, 'corners'), tmp_path / 'out', size=100, gap=20, share=share)
    assert made['train'][:3] == (1, 2, objects)
    content = json.loads((tmp_path / 'out/annotations/train.json').read_text())
    assert [image['file_name'] for image in content['images']] == ['P1__100__0__0.png', 'P1__100__80__0.png']
    first = content['annotations'][0]
    assert first['bbox'] == [10, 20, 20, 20]
    if share == 0.7:
        cut = [a['bbox'] for a in content['annotations'][1:]]
        assert cut == [[70, 20, 30, 20], [0, 20, 30, 20]]
    whole = cv2.imread(str(dota / 'train/images/P1.png'))
    assert np.array_equal(cv2.imread(str(tmp_path / 'out/train/P1__100__80__0.png')), whole[:, 80:])


def test_tiles_are_a_data_set(dota, tmp_path):
    write_tiles(find_data(dota, 'corners'), tmp_path / 'out', size=100, gap=20)
    source = find_data(tmp_path / 'out', 'corners')
    assert (source.format, source.classes, set(source.splits)) == ('COCO', ('ship',), {'train', 'val'})


def test_tiles_larger_than_the_image_are_said(dota, tmp_path, capsys):
    made = write_tiles(find_data(dota, 'corners'), tmp_path / 'out', size=256, gap=20)
    assert made['train'][:3] == (1, 1, 2)
    assert 'larger than all images, the largest of which has 180' in capsys.readouterr().out


@pytest.mark.parametrize('out', ['', 'train', 'train/images', 'train/labelTxt/P1.txt'])
def test_nothing_is_written_beside_data(dota, out):
    before = {p: p.read_bytes() for p in dota.rglob('*') if p.is_file()}
    with pytest.raises(UserError, match='is not empty: set a new folder for the tiles'):
        write_tiles(find_data(dota, 'corners'), dota / out, size=100, gap=20)
    assert {p: p.read_bytes() for p in dota.rglob('*') if p.is_file()} == before


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(size=16), 'invalid --size 16: set 32 pixels or more'),
        (dict(size=100, gap=100), 'invalid --gap 100: set pixels from 0 to less than --size 100'),
        (dict(share=0.0), 'invalid --share 0: set a share above 0, at most 1'),
    ],
)
def test_sizes_that_make_no_tiles(dota, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        write_tiles(find_data(dota, 'corners'), tmp_path / 'out', **options)
