"""DOTA's text labels: what is read, and which lines are refused."""

import cv2
import numpy as np
import pytest

from mmdyn.annotations import read_dota
from mmdyn.datasets import find_data
from mmdyn.errors import UserError

GOOD = '10.0 20.0 50.0 10.0 60.0 30.0 20.0 40.0 small-vehicle 0'


def folder_of(root, text):
    for name in ('images', 'labelTxt'):
        (root / name).mkdir(parents=True)
    for name in ('P0001', 'P0002'):
        cv2.imwrite(str(root / 'images' / f'{name}.png'), np.zeros((60, 80, 3), np.uint8))
    (root / 'labelTxt/P0001.txt').write_text(text)
    return sorted((root / 'images').glob('*.png')), root / 'labelTxt'


def test_headings_corners_classes_and_difficult_objects(tmp_path):
    text = f'imagesource:GoogleEarth\ngsd:0.146\n{GOOD}\n\n{GOOD.replace("small-vehicle 0", "plane 1")}\n'
    table, _ = read_dota(*folder_of(tmp_path, text), 'here')
    assert table.classes == ('plane', 'small-vehicle')
    assert table.labels.tolist() == [1, 0]
    assert table.crowd.tolist() == [False, True]
    assert table.boxes.tolist() == [[10, 10, 50, 30]] * 2
    assert table.segmentation(0) == [[10, 20, 50, 10, 60, 30, 20, 40]]
    assert [len(table.boxes[table.objects(i)]) for i in range(2)] == [2, 0]


@pytest.mark.parametrize(
    ('line', 'why'),
    [
        (GOOD.removesuffix(' 0'), r'P0001.txt:2: 9 words instead of 10: .* whether it is difficult \(0 where'),
        (GOOD.replace('50.0', 'x'), 'P0001.txt:2: .* are not eight numbers'),
        (GOOD.replace('50.0', 'nan'), 'P0001.txt:2: .* are not eight numbers'),
        (GOOD.removesuffix('0') + 'yes', "P0001.txt:2: difficult is 'yes', where 0 or 1 is needed"),
    ],
)
def test_lines_that_are_no_labels(tmp_path, line, why):
    with pytest.raises(UserError, match=why):
        read_dota(*folder_of(tmp_path, f'{GOOD}\n{line}\n'), 'here')


def test_a_class_that_is_not_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"objects of class 'small-vehicle', which is not among \['plane'\]"):
        read_dota(*folder_of(tmp_path, GOOD), 'here', ['plane'])


def test_the_folders_of_dota_are_found(tmp_path):
    for split, name in (('train', 'ship'), ('val', 'plane')):
        folder_of(tmp_path / split, GOOD.replace('small-vehicle', name))
    source = find_data(tmp_path, 'corners')
    assert (source.format, source.classes) == ('DOTA', ('plane', 'ship'))
    assert {k: v['type'] for k, v in source.splits.items()} == dict.fromkeys(('train', 'val'), 'mmyolo.DOTADataset')
