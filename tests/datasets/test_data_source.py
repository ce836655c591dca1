"""What --data finds: every layout that people have, and one message where something is wrong."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmyolo.registry import DATASETS

from mmdyn.datasets import find_data
from mmdyn.errors import UserError
from mmdyn.running import load_config
from mmdyn.running.common_options import set_common_options
from mmdyn.running.training_options import set_training_options

IMAGE = np.full((40, 60, 3), 128, np.uint8)
BOX = '1 0.5 0.5 0.5 0.25\n'
NAMES = ('cat', 'wild dog')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDYN_CACHE', str(tmp_path / 'cache'))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.jpg', IMAGE)[1].tobytes())


def yolo(root: Path, yaml: str, folders=('images/train', 'images/val'), labels='labels') -> Path:
    """A data set of one image a folder; the path of its data.yaml."""
    for folder in folders:
        picture(root / folder / 'ein bild.jpg')
        label = root / folder.replace('images', labels) / 'ein bild.txt'
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(BOX)
    (root / 'data.yaml').write_text(yaml)
    return root / 'data.yaml'


def coco(root: Path, file: str, folder: str, names=NAMES) -> None:
    """An annotation file of one image in a folder."""
    picture(root / folder / 'a.jpg')
    content = dict(
        images=[dict(id=1, file_name='a.jpg', width=60, height=40)],
        annotations=[dict(id=1, image_id=1, category_id=2, bbox=[15, 15, 30, 10])],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)],
    )
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


def voc(root: Path, files: tuple[str, ...], image_sets=()) -> None:
    """XML files of one object each."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(
            '<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height></size><object>'
            '<name>wild dog</name><bndbox><xmin>16</xmin><ymin>16</ymin><xmax>45</xmax><ymax>25</ymax></bndbox>'
            '</object></annotation>'
        )
    for name in image_sets:
        (root / 'ImageSets/Main').mkdir(parents=True, exist_ok=True)
        (root / f'ImageSets/Main/{name}.txt').write_text('a\n')


SPLITS = 'names: [cat, wild dog]\ntrain: images/train\nval: images/val\n'


def plain(root):
    return yolo(root, SPLITS)


def names_by_number(root):
    return yolo(root, SPLITS.replace('[cat, wild dog]', '{1: wild dog, 0: cat}') + 'nc: 2\npath: .\n')


def a_folder(root):
    return yolo(root, SPLITS).parent


def below_path(root):
    file = yolo(root / 'sub', SPLITS + 'path: sub\n')
    return file.rename(root / 'my.yaml')


def lists(root):
    folders = ('images/train', 'images/more', 'images/val')
    return yolo(root, SPLITS.replace('train: images/train', 'train: [images/train, images/more]'), folders)


def text_file(root):
    file = yolo(root, SPLITS.replace('val: images/val', 'val: val.txt'))
    (root / 'val.txt').write_text('./images/val/ein bild.jpg\n')
    return file


def roboflow_yolo(root):
    folders = ('train/images', 'valid/images')
    return yolo(root, 'names: [cat, wild dog]\ntrain: ../train/images\nval: ../valid/images\n', folders)


def roboflow_coco(root):
    for split in ('train', 'valid'):
        coco(root, f'{split}/_annotations.coco.json', split)
    return root


def coco_2017(root):
    for split in ('train2017', 'val2017'):
        coco(root, f'annotations/instances_{split}.json', split)
        coco(root, f'annotations/captions_{split}.json', split, names=())
    return root


def coco_in_images(root):
    for split in ('train', 'val'):
        coco(root, f'annotations/{split}.json', f'images/{split}')
    return root


def coco_beside(root):
    for split in ('train', 'val'):
        coco(root, f'{split}.json', 'images')
    return root


def voc_2012(root):
    picture(root / 'JPEGImages/a.jpg')
    voc(root, ('Annotations/a.xml',), ('train', 'val', 'trainval'))
    return root


def roboflow_voc(root):
    for split in ('train', 'valid'):
        picture(root / split / 'a.jpg')
    voc(root, ('train/a.xml', 'valid/a.xml'))
    return root


def dota(root):
    for split in ('train', 'val'):
        picture(root / split / 'images/a.jpg')
        (root / split / 'labelTxt').mkdir()
        lines = '15 15 45 15 45 25 15 25 wild-dog 0', '1 1 9 1 9 9 1 9 cat 0'
        (root / split / 'labelTxt/a.txt').write_text('\n'.join(lines))
    return root


LAYOUTS = [
    plain,
    names_by_number,
    a_folder,
    below_path,
    lists,
    text_file,
    roboflow_yolo,
    roboflow_coco,
    coco_2017,
    coco_in_images,
    coco_beside,
    voc_2012,
    roboflow_voc,
]


@pytest.mark.parametrize('layout', LAYOUTS, ids=lambda f: f.__name__)
def test_layouts(layout, tmp_path):
    path = layout(tmp_path / 'my data')
    before = sorted(p for p in (tmp_path / 'my data').rglob('*'))
    source = find_data(path)
    assert source.classes == (('wild dog',) if 'voc' in layout.__name__ else NAMES)
    assert source.format == ('VOC' if 'voc' in layout.__name__ else 'COCO' if 'coco' in layout.__name__ else 'YOLO')
    assert set(source.splits) == {'train', 'val'}
    assert len(str(source).splitlines()) == 3
    for split, arguments in source.splits.items():
        dataset = DATASETS.build(dict(arguments, test_mode=split == 'val'))
        assert len(dataset) == (2 if layout is lists and split == 'train' else 1)
        info = dataset[0]
        assert Path(info['img_path']).is_file()
        assert [i['bbox'] for i in info['instances']] == [[15, 15, 45, 25]]
        assert dataset.metainfo['classes'][info['instances'][0]['bbox_label']] == 'wild dog'
    assert sorted(p for p in (tmp_path / 'my data').rglob('*')) == before  # nothing is written beside the data


def without_names(root):
    return yolo(root, 'train: images/train\nval: images/val\n')


def other_count(root):
    return yolo(root, SPLITS + 'nc: 3\n')


def a_hole(root):
    return yolo(root, SPLITS.replace('[cat, wild dog]', '{0: cat, 2: wild dog}'))


def nowhere(root):
    return yolo(root, SPLITS.replace('images/val', 'images/gone') + 'path: elsewhere\n')


def no_yaml(root):
    return yolo(root, 'names: [cat\n')


def no_split(root):
    return yolo(root, 'names: [cat]\n')


def a_number(root):
    return yolo(root, SPLITS.replace('images/train', '3'))


def missing_file(root):
    return root / 'data.yaml'


def missing_folder(root):
    return root


def empty_folder(root):
    root.mkdir()
    return root


def two_formats(root):
    coco(root, 'train/_annotations.coco.json', 'train')
    return yolo(root, SPLITS).parent


def other_categories(root):
    coco(root, 'train.json', 'images')
    coco(root, 'val.json', 'images', names=('wild dog', 'cat'))
    return root


def two_files(root):
    for name in ('train_a', 'train_b'):
        coco(root, f'annotations/{name}.json', 'images')
    return root


def images_gone(root):
    coco(root, 'annotations/train.json', 'elsewhere')
    return root


def a_name_and_a_number(root):
    return yolo(root, SPLITS.replace('[cat, wild dog]', '{0: cat, x: wild dog}'))


def one_number_of_keypoints(root):
    return yolo(root, SPLITS + 'kpt_shape: 17\n')


def two_label_folders(root):
    (dota(root) / 'val/labelTxt-v1.5').mkdir()
    (root / 'val/labelTxt-v1.5/a.txt').write_text('')
    return root


REFUSED = {
    two_label_folders: 'labelTxt and labelTxt-v1.5 could both have the labels of val. Leave one there',
    a_name_and_a_number: r"'names' has the numbers \['0', 'x'\], where 0 to 1 are needed",
    one_number_of_keypoints: r"'kpt_shape' is 17, where \[keypoints, 2 or 3\] is needed",
    without_names: r"has no 'names': set it to the list of class names",
    other_count: r"'nc' is 3, but 'names' has 2 names",
    a_hole: r"'names' has the numbers \['0', '2'\], where 0 to 1 are needed",
    nowhere: r"'val' is 'images/gone', which is nowhere. Tried:\n.*elsewhere/images/gone\n(.*\n)+Set 'path'",
    no_yaml: 'is not YAML',
    no_split: r"names neither 'train' nor 'val'",
    a_number: r"'train' is 3, where a folder, a text file or a list of them is needed",
    missing_file: 'there is no file at',
    missing_folder: 'there is no folder or data.yaml at',
    empty_folder: r'no annotations. Looked for:\n  YOLO: .*\n  COCO: .*\n  VOC: ',
    two_formats: 'annotations of several formats: YOLO and COCO. Give the data.yaml',
    other_categories: r"train.json has the categories \['cat', 'wild dog'\], but val.json has \['wild dog', 'cat'\]",
    two_files: 'train_a.json, train_b.json could all be the annotation file of train',
    images_gone: r'names the image a.jpg, which is nowhere. Tried:\n',
}


@pytest.mark.parametrize('layout', REFUSED, ids=lambda f: f.__name__)
def test_what_is_refused(layout, tmp_path):
    with pytest.raises(UserError, match=REFUSED[layout]):
        find_data(layout(tmp_path / 'data'))


def test_labels_of_dota_as_its_archives_have_them(tmp_path):
    root = dota(tmp_path / 'data')
    (root / 'train/labelTxt').rename(root / 'train/texts')
    (root / 'train/labelTxt-v1.0').mkdir()
    (root / 'train/texts').rename(root / 'train/labelTxt-v1.0/labelTxt')
    assert find_data(root).splits['train']['labels'] == 'labelTxt-v1.0/labelTxt'


FOLDERS = {
    plain: 'images for classification are in a folder, in train/CLASS/ and val/CLASS/ there; there is a file at',
    roboflow_coco: 'train has no folders, but images for classification are in train/CLASS/',
    missing_folder: 'there is nothing at',
}


@pytest.mark.parametrize('layout', FOLDERS, ids=lambda f: f.__name__)
def test_data_of_a_detector_are_not_those_of_a_classifier(layout, tmp_path):
    with pytest.raises(UserError, match=FOLDERS[layout]):
        find_data(layout(tmp_path / 'data'), 'classes')


def test_voc_that_was_converted_is_read_as_coco(tmp_path):
    voc(tmp_path, ('Annotations/a.xml',), ('train', 'val'))
    for split in ('train', 'val'):
        coco(tmp_path, f'annotations/{split}.json', 'JPEGImages')
    source = find_data(tmp_path)
    assert source.format == 'COCO'
    assert source.splits['train']['data_prefix'] == dict(img='JPEGImages/')


def test_a_config_takes_data_classes_and_numbers(tmp_path):
    cfg = load_config('yolo11n_dynconv_coco')
    pipeline = cfg.train_dataloader.dataset.pipeline
    set_common_options(cfg, plain(tmp_path / 'd'), (320, 320), epochs=3, batch=4, workers=0, lr=0.002)
    assert cfg.model.bbox_head.head_module.num_classes == 2
    train, val = cfg.train_dataloader, cfg.val_dataloader
    assert [train.dataset.type, val.dataset.type] == ['mmyolo.YOLOTextDataset'] * 2
    assert len(train.dataset.pipeline) == len(pipeline)
    assert val.dataset.test_mode
    assert val.dataset.batch_shapes_cfg.img_size == 320
    assert (train.batch_size, train.num_workers, train.persistent_workers) == (4, 0, False)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval, cfg.optim_wrapper.optimizer.lr) == (3, 1, 0.002)
    assert cfg.test_dataloader.dataset.images == val.dataset.images


@pytest.mark.parametrize('layout', [plain, roboflow_coco, voc_2012, dota], ids=lambda f: f.__name__)
@pytest.mark.parametrize('number', [False, True])
def test_classes_are_chosen_whatever_the_format(layout, number, tmp_path):
    root = layout(tmp_path / 'd')
    cfg = load_config('yolo11n_coco')
    set_common_options(cfg, root)
    names = find_data(root).classes
    set_training_options(cfg, classes=[str(len(names) - 1) if number else names[-1]])
    assert cfg.model.bbox_head.head_module.num_classes == 1
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build(dict(loader.dataset, pipeline=[]))
        assert dataset.metainfo['classes'] == names[-1:]
        assert [(i['bbox'], i['bbox_label']) for i in dataset[0]['instances']] == [([15, 15, 45, 25], 0)]


def test_classes_of_a_config_of_mmdets_habit(tmp_path):
    cfg = load_config('retinanet_dynconv_r50_fpn_1x_coco')
    set_common_options(cfg, roboflow_coco(tmp_path / 'd'))
    assert cfg.model.bbox_head.num_classes == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(epochs=0), 'invalid --epochs 0: set it to 1 or more'),
        (dict(batch=0), 'invalid --batch 0: set it to 1 or more'),
        (dict(workers=-1), 'invalid --workers -1: set it to 0 or more'),
        (dict(lr=0.0), 'invalid --lr 0: set it to a number above 0'),
        (dict(lr=float('nan')), 'invalid --lr nan'),
        (dict(imgsz=(0, 0)), 'invalid image size 0 x 0'),
    ],
    ids=str,
)
def test_numbers_that_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        set_common_options(load_config('yolo11n_coco'), **options)


def test_data_without_validation(tmp_path):
    file = yolo(tmp_path / 'd', 'names: [cat, dog]\ntrain: images/train\n')
    with pytest.raises(UserError, match='has no validation images: name them val or valid'):
        set_common_options(load_config('yolo11n_coco'), file)


def test_evaluators_take_the_annotations_of_the_data(tmp_path):
    cfg = load_config('retinanet_dynconv_r50_fpn_1x_coco')
    assert 'ann_file' in cfg.val_evaluator
    set_common_options(cfg, plain(tmp_path / 'd'))
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type == 'mmyolo.DatasetCocoMetric'
        assert 'ann_file' not in evaluator


def test_what_a_config_says_of_bad_images_stays(tmp_path):
    root = plain(tmp_path / 'd')
    cfg = load_config('yolo11n_coco', {'train_dataloader.dataset.on_bad_images': 'skip'})
    set_common_options(cfg, root)
    assert cfg.train_dataloader.dataset.on_bad_images == 'skip'
