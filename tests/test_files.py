"""Files are written whole or not at all."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdyn.errors import UserError
from mmdyn.files import (
    new_file,
    partial_path,
    remove_partial_files,
    replacing,
    write_bytes,
    write_image,
    write_json,
    write_text,
)


def test_every_kind_is_written_and_nothing_stays_beside_it(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    write_bytes(tmp_path / 'new' / 'bytes', b'\0\1')
    write_text(tmp_path / 'new' / 'text.md', 'grüße\n')
    write_json(tmp_path / 'new' / 'numbers.json', {'a': [1, 2]})
    write_image(tmp_path / 'new' / 'image.png', image)
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == ['bytes', 'image.png', 'numbers.json', 'text.md']
    assert (tmp_path / 'new/bytes').read_bytes() == b'\0\1'
    assert (tmp_path / 'new/text.md').read_bytes() == 'grüße\n'.encode()
    assert (tmp_path / 'new/numbers.json').read_text() == '{"a": [1, 2]}'
    assert np.array_equal(cv2.imread(str(tmp_path / 'new/image.png')), image)


@pytest.mark.parametrize(
    ('write', 'error'),
    [
        (lambda path: write_json(path, {'a': object()}), TypeError),
        (lambda path: write_image(path, np.zeros((1 << 17, 1, 3), np.uint8)), (UserError, cv2.error)),
    ],
    ids=['json', 'image'],
)
def test_a_failure_leaves_the_file_before_it(tmp_path, write, error):
    path = tmp_path / 'file.jpg'
    path.write_text('before')
    with pytest.raises(error):
        write(path)
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]


def test_data_and_folder_are_synchronised_before_and_after_the_move(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda fd: (events.append(os.readlink(f'/proc/self/fd/{fd}')), fsync(fd)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (events.append('move'), replace(a, b)))
    with replacing(tmp_path / 'file') as partial:
        partial.write_text('x')
    assert events == [str(partial), 'move', str(tmp_path)]


def test_a_link_of_the_partial_name_is_not_followed(tmp_path):
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    partial_path(tmp_path / 'file').symlink_to(victim)
    write_text(tmp_path / 'file', 'new')
    assert (victim.read_text(), (tmp_path / 'file').read_text()) == ('mine', 'new')


def test_partial_files_of_killed_processes_go_and_no_others(tmp_path):
    stale = tmp_path / Path(partial_path(tmp_path / 'epoch_1.pth')).name.replace(str(os.getpid()), '1')
    for path in (stale, tmp_path / 'epoch_1.pth', tmp_path / '.hidden'):
        path.write_text('')
    remove_partial_files(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {'epoch_1.pth', '.hidden'}


def test_new_file_refuses_what_exists_and_dangling_links(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'nowhere')
    assert new_file(tmp_path / 'new') == tmp_path / 'new'
    with pytest.raises(UserError, match='link exists and is not overwritten'):
        new_file(tmp_path / 'link')
