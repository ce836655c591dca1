"""Annotations as arrays: what each format gives, the cache, and what is refused."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL.PngImagePlugin import PngImageFile

from conftest import ROOT
from mmdyn.annotations import Annotations, read_coco, read_yolo
from mmdyn.annotations.cache import cached, map_arrays
from mmdyn.annotations.coco import load_coco
from mmdyn.annotations.image_files import look_at_images
from mmdyn.annotations.table import Strings
from mmdyn.annotations.yolo import images_of, label_file
from mmdyn.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and nothing in memory."""
    from mmdyn.annotations import cache as module

    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(module, '_memory', {})
    return tmp_path / 'cache'


def forget(monkeypatch):
    """As a new process: nothing is in memory."""
    from mmdyn.annotations import cache as module

    monkeypatch.setattr(module, '_memory', {})


@pytest.fixture
def write(tmp_path):
    """Write an image of 60 x 40 pixels and its label file; both paths are relative to the folder."""

    def write_pair(image, labels=None):
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        path = tmp_path / image
        done, data = cv2.imencode(path.suffix, np.full((40, 60, 3), 128, np.uint8))
        assert done
        path.write_bytes(data.tobytes())
        if labels is not None:
            label_file(path).parent.mkdir(parents=True, exist_ok=True)
            label_file(path).write_text(labels)
        return path

    return write_pair


@pytest.mark.parametrize('strings', [[], [''], ['a', '', 'ß.jpg', '图 片.png'], ['\udcff.jpg']], ids=str)
def test_strings_are_those_that_went_in(strings):
    packed = Strings.of(strings)
    assert list(packed) == strings
    assert len(packed) == len(strings)
    if strings:
        assert packed[-1] == strings[-1]
    with pytest.raises(IndexError):
        packed[len(strings)]


def table(**changes):
    return Annotations.of(
        **dict(
            files=['b.jpg', 'a.jpg', 'none.jpg'],
            sizes=[(60, 40), (30, 20), (9, 9)],
            images=[1, 0, 1],
            boxes=[(0, 0, 9, 9), (5, 6, 7, 8), (1, 1, 2, 2)],
            labels=[1, 0, 0],
            classes=['cat', 'wild dog'],
        )
        | changes
    )


def same(one, other):
    ours, theirs = one.arrays(), other.arrays()
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k]) for k in ours)


def test_objects_are_grouped_by_image_and_keep_their_order():
    annotations = table()
    rows = [annotations.boxes[annotations.objects(i)].tolist() for i in range(3)]
    assert rows == [[[5, 6, 7, 8]], [[0, 0, 9, 9], [1, 1, 2, 2]], []]
    assert annotations.labels.tolist() == [0, 1, 0]
    assert annotations.areas.tolist() == [56, 81, 4]
    assert annotations.image_of_object.tolist() == [0, 1, 1]
    coco = annotations.as_coco()
    assert [a['image_id'] for a in coco['annotations']] == [1, 2, 2]
    assert coco['categories'] == [dict(id=1, name='cat'), dict(id=2, name='wild dog')]
    assert annotations.points.shape == (0, 2)
    assert annotations.point_starts.tolist() == [0, 0, 0, 0]
    assert annotations.keypoints.shape == (3, 0, 3)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        dict(image_ids=['x', 'y', 'z'], class_ids=[7, 'k']),
        dict(image_ids=[5, 'y', 2]),
        dict(notes=dict(clipped=3), outlines=[np.zeros((3, 2)), np.ones((4, 2)), np.empty((0, 2))]),
        dict(keypoints=np.ones((3, 2, 3)), segmentations=['[[1]]', '', '{}']),
        dict(images=[], boxes=[], labels=[]),
    ],
    ids=['plain', 'strings', 'mixed ids', 'outlines', 'keypoints', 'no objects'],
)
def test_arrays_are_a_way_there_and_back(changes, cache):
    annotations = table(**changes)
    arrays, origin = cached('a source', 1, annotations.arrays)
    mapped = Annotations.from_arrays(arrays, origin)
    assert same(mapped, annotations)
    assert [mapped.image_id(i) for i in range(3)] == list(changes.get('image_ids', [1, 2, 3]))
    assert all(same(pickle.loads(pickle.dumps(each)), annotations) for each in (annotations, mapped))
    assert len(pickle.dumps(mapped)) < 400  # a spawned process maps the file


def test_the_cache_is_used_until_the_source_changes(cache, monkeypatch):
    calls = []

    def build():
        calls.append(1)
        return dict(numbers=np.arange(len(calls)))

    for state, expected in ((1, 1), (1, 1), (2, 2), (1, 3)):
        forget(monkeypatch)
        arrays, origin = cached('source', state, build)
        assert len(arrays['numbers']) == expected
        assert origin is not None
    assert len(list(cache.glob('*.safetensors'))) == 1  # of a source, the last state


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'other bytes'])
def test_a_damaged_cache_file_is_made_again(cache, monkeypatch, damage):
    build = table().arrays
    _, origin = cached('source', 1, build)
    path = cache / os.path.basename(origin)
    data = path.read_bytes()
    path.write_bytes({'truncated': data[:-9], 'empty': b'', 'other bytes': b'\xff' * len(data)}[damage])
    forget(monkeypatch)
    arrays, origin = cached('source', 1, build)
    assert same(Annotations.from_arrays(arrays), table())
    assert path.read_bytes() == data


def test_a_cache_of_another_format_is_not_read(monkeypatch):
    from mmdyn.annotations import cache as module

    cached('source', 1, lambda: dict(a=np.zeros(1)))
    forget(monkeypatch)
    monkeypatch.setattr(module, 'FORMAT', module.FORMAT + 1)
    assert list(cached('source', 1, lambda: dict(b=np.zeros(1)))[0]) == ['b']


def test_a_folder_that_cannot_be_written_to_means_no_cache(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'file/below'))
    arrays, origin = cached('source', 1, lambda: dict(a=np.arange(3)))
    assert (arrays['a'].tolist(), origin) == ([0, 1, 2], None)


def test_a_full_disk_means_no_cache(cache, monkeypatch):
    from mmdyn.annotations import cache as module

    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module, 'save_file', full)
    arrays, origin = cached('source', 1, lambda: dict(a=np.arange(3)))
    assert (arrays['a'].tolist(), origin) == ([0, 1, 2], None)
    assert not list(cache.glob('*safetensors*'))


TWO = """
import sys, time
import numpy as np
import mmdyn
from mmdyn.annotations.cache import cached
def build():
    with open(sys.argv[1], 'a') as file:
        file.write('built\\n')
    time.sleep(1)
    return dict(a=np.arange(5))
print(cached('source', 1, build)[0]['a'].tolist())
"""


@pytest.mark.slow
def test_two_processes_build_once(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', TWO, tmp_path / 'log']
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(2)]
    assert [p.communicate()[0].splitlines()[-1] for p in processes] == ['[0, 1, 2, 3, 4]'] * 2
    assert (tmp_path / 'log').read_text() == 'built\n'


def test_coco_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    content = table().as_coco()
    path.write_text(json.dumps(content))
    first = load_coco(path)
    assert same(first, table())
    assert first.origin is not None
    content['annotations'].pop()
    path.write_text(json.dumps(content))
    assert len(load_coco(path).boxes) == 2


def test_outlines_of_coco_are_kept_when_asked_for(tmp_path):
    content = table().as_coco()
    content['annotations'][0]['segmentation'] = [[1.5, 2, 3, 4, 5, 6]]
    content['annotations'][1]['segmentation'] = dict(counts='a`b', size=[3, 4])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    kept = [json.loads(text) if text else None for text in read_coco(tmp_path / 'a.json', outlines=True).segmentations]
    assert kept == [[[1.5, 2, 3, 4, 5, 6]], dict(counts='a`b', size=[3, 4]), None]
    assert read_coco(tmp_path / 'a.json').segmentations is None


def test_empty_json_is_no_json(tmp_path):
    (tmp_path / 'a.json').write_text('')
    with pytest.raises(UserError, match='a.json is not JSON'):
        read_coco(tmp_path / 'a.json')


@pytest.mark.parametrize(
    ('image', 'label'),
    [
        ('/d/images/train/a.jpg', '/d/labels/train/a.txt'),
        ('/images/d/images/a.b.png', '/images/d/labels/a.b.txt'),
        ('/d/train/a.jpg', '/d/train/a.txt'),
        ('/d/my images/a.jpg', '/d/my images/a.txt'),
    ],
)
def test_where_labels_are(image, label):
    assert str(label_file(Path(image))) == label


def read(images, classes=('cat', 'wild dog'), **options):
    return read_yolo(images, classes, 'data', **options)[0]


def test_yolo_labels_are_boxes_in_pixels(write):
    images = [
        write('images/a.jpg', '1 0.5 0.5 0.5 0.25\n0 0.1 0.1 0.2 0.2\n\n'),
        write('images/mit Leerzeichen ß.png', ''),
        write('images/none.bmp'),
    ]
    annotations = read(images)
    assert annotations.boxes.tolist() == [[15, 15, 30, 10], [0, 0, 12, 8]]
    assert annotations.labels.tolist() == [1, 0]
    assert annotations.sizes.tolist() == [[60, 40]] * 3
    assert annotations.notes == dict(background=2, orphans=0, repeated=0)
    assert list(annotations.files) == list(map(str, images))


def test_yolo_counts_what_is_left_out(write, tmp_path):
    line = '0 0.5 0.5 0.5 0.25\n'
    image = write('images/a.jpg', line * 3)
    (tmp_path / 'labels/orphan.txt').write_text(line)
    (tmp_path / 'labels/classes.txt').write_text('cat\n')
    assert read([image]).notes == dict(background=0, orphans=1, repeated=2)


def test_yolo_outlines_and_keypoints(write):
    outline = read([write('images/a.jpg', '0 0.1 0.1 0.5 0.1 0.5 0.5 0.2 0.6')])
    assert outline.points.tolist() == [[6, 4], [30, 4], [30, 20], [12, 24]]
    np.testing.assert_allclose(outline.boxes, [[6, 4, 24, 20]])
    three = read([write('images/b.jpg', '0 0.5 0.5 0.5 0.5 0.5 0.5 2 0 0 0')], keypoints=(2, 3))
    assert three.keypoints.tolist() == [[[30, 20, 2], [0, 0, 0]]]
    two = read([write('images/c.jpg', '0 0.5 0.5 0.5 0.5 0.5 0.5 0 0')], keypoints=(2, 2))
    assert two.keypoints.tolist() == three.keypoints.tolist()


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('0 0.5 0.5 0.5', '4 fields instead of 5 for a box, or 7, 9'),
        ('0 0.5 0.5 0.5 0.5 0.1', '6 fields instead of'),
        ('2 0.5 0.5 0.5 0.5', 'class 2, but the names have the classes 0 to 1'),
        ('-1 0.5 0.5 0.5 0.5', 'class -1'),
        ('0.5 0.5 0.5 0.5 0.5', 'class 0.5'),
        ('nan 0.5 0.5 0.5 0.5', 'class nan'),
        ('cat 0.5 0.5 0.5 0.5', "'cat' is not a number"),
        ('0 0.5 0.5 0.5 nan', 'nan is not from 0 to 1'),
        ('0 30 20 10 10', '30 is not from 0 to 1; coordinates are in units'),
        ('0 0.5 -0.2 0.5 0.5', '-0.2 is not from 0 to 1'),
    ],
)
def test_yolo_lines_that_are_no_labels(write, line, message):
    image = write('images/a.jpg', f'0 0.5 0.5 0.5 0.25\n{line}\n')
    with pytest.raises(UserError, match=rf'1 lines are not labels:\n  .*labels/a.txt:2: {message}'):
        read([image])


def test_of_a_thousand_broken_lines_five_are_shown(write):
    image = write('images/a.jpg', '\n'.join(f'9 0.5 0.5 0.5 0.{i:04d}' for i in range(1000)))
    with pytest.raises(UserError) as error:
        read([image])
    lines = str(error.value).splitlines()
    assert lines[0] == 'data: 1000 lines are not labels:'
    assert [line.split(':')[1] for line in lines[1:6]] == ['1', '2', '3', '4', '5']
    assert lines[6:] == ['  and 995 more', 'Correct or remove them']


def test_yolo_images_of_one_name(write):
    images = [write('images/a.jpg', ''), write('images/a.png')]
    with pytest.raises(UserError, match=r'a.jpg and .*a.png have one name.*labels/a.txt: rename one'):
        read(images)


def test_yolo_labels_that_are_no_text(write, tmp_path):
    image = write('images/a.jpg', '')
    label_file(image).write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match='a.txt:1: it cannot be read'):
        read([image])


def test_yolo_is_read_again_when_a_label_changes(write, monkeypatch):
    image = write('images/a.jpg', '0 0.5 0.5 0.5 0.25')
    assert read([image]).labels.tolist() == [0]
    label_file(image).write_text('1 0.5 0.5 0.5 0.25 ')
    assert read([image]).labels.tolist() == [1]
    label_file(image).unlink()
    assert read([image]).labels.tolist() == []


def test_a_yolo_image_that_is_missing_or_broken_is_named(write, tmp_path):
    from mmdyn.datasets import YOLOTextDataset

    images = [write('images/a.jpg', '0 0.5 0.5 0.5 0.25'), write('images/b.jpg', ''), tmp_path / 'images/gone.jpg']
    images[1].write_bytes(images[1].read_bytes()[:-100])
    (tmp_path / 'list.txt').write_text('\n'.join(map(str, images)))
    build = dict(images='list.txt', data_root=str(tmp_path), metainfo=dict(classes=('cat',)))
    with pytest.raises(UserError, match=r'2 bad images \(.*b.jpg: (truncated|damaged).*; .*gone.jpg: missing\)'):
        YOLOTextDataset(**build)
    dataset = YOLOTextDataset(**build, on_bad_images='skip')
    assert len(dataset) == 1
    assert dataset.metainfo['skipped_images'] == [2, 3]


def test_images_of_folders_and_text_files(write, tmp_path):
    a, b = write('images/x/a.jpg'), write('images/b.PNG')
    (tmp_path / 'list.txt').write_text(f'images/b.PNG\n\n./images/x/a.jpg\n{a}\n')
    (tmp_path / 'images/notes.md').write_text('no image')
    assert images_of([tmp_path / 'images'], 'data') == [b, a]
    assert images_of([tmp_path / 'list.txt'], 'data') == [b, a]
    with pytest.raises(UserError, match='neither a folder nor a file at .*nowhere'):
        images_of([tmp_path / 'nowhere'], 'data')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='data is empty: no image in .*empty'):
        images_of([tmp_path / 'empty'], 'data')


def test_mapped_arrays_are_not_copied(cache):
    _, origin = cached('source', 1, lambda: dict(a=np.zeros(3_000_000)))
    before = resident()
    arrays = map_arrays(cache / os.path.basename(origin))
    assert arrays['a'].nbytes == 24_000_000
    assert resident() - before < 8


def resident() -> float:
    """Memory of this process in MiB."""
    rows = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith('Rss:')) / 1024


def test_yolo_is_read_again_when_a_list_names_other_images(write):
    images = [write(f'images/{i}.bmp', f'{i % 2} 0.5 0.5 0.5 0.25') for i in range(4)]
    for file in (*images, *map(label_file, images)):
        os.utime(file, (1, 1))  # as after unpacking an archive; sizes are equal, too
    assert list(read(images[:2]).files) == [str(i) for i in images[:2]]
    assert list(read(images[2:]).files) == [str(i) for i in images[2:]]


def test_a_png_that_pillow_cannot_parse_is_a_fault_of_that_file(write):
    image = write('images/a.png', '')
    data = image.read_bytes()
    image.write_bytes(data.replace(b'IDAT', b'ID\0T'))
    assert look_at_images([image], 'these').faults_for(np.array([[60, 40]]))[0].startswith('damaged or not an image')


def test_headers_of_whole_png_files_are_read_and_not_their_pixels(write, monkeypatch):
    image = write('images/a.png', '')
    monkeypatch.setattr(PngImageFile, 'load', lambda self: pytest.fail('pixels were read'))
    assert look_at_images([image], 'these').sizes.tolist() == [[60, 40]]
