"""Classification: published counts, figures of any number of classes, folders of images, and what is refused."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain', reason='needs requirements/classify.txt')

from mmdyn.analysis.flops import count_cost
from mmdyn.classify import ImageFolder, TopAccuracy
from mmdyn.datasets import find_data
from mmdyn.datasets.digits import make_digit_crops
from mmdyn.errors import UserError
from mmdyn.models import build_model
from mmdyn.running import load_config
from mmdyn.running.common_options import set_common_options
from mmdyn.running.training_options import set_training_options

COUNTS = {
    '': (2_812_104, 6_724_008, 11_634_216, 14_115_624, 29_637_064),
    '_dynconv': (4_264_024, 12_530_872, 27_783_224, 30_264_632, 65_970_392),
    '_c3k2_dynconv': (3_106_272, 7_899_840, 13_681_608, 18_210_408, 38_848_136),
}


@pytest.mark.parametrize('variant', COUNTS)
@pytest.mark.parametrize('scale', 'nsmlx')
def test_published_counts(scale, variant):
    with torch.device('meta'):
        model = build_model(load_config(f'classify/yolo11{scale}{variant}_imagenet'))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == COUNTS[variant]['nsmlx'.index(scale)]


def test_flops():
    cost = count_cost(build_model(load_config('classify/yolo11n_imagenet')), 224, 224)
    assert cost.flops / 1e9 == pytest.approx(0.392, abs=5e-4)
    assert cost.by_part['head'] == 7 * 7 * 256 * 1280 + 1280 * 1000
    assert sum(cost.by_part.values()) == cost.macs


@pytest.mark.parametrize('classes', [2, 3, 5, 9])
def test_accuracy_of_any_number_of_classes(classes):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, classes, generator=generator)
    labels = torch.randint(classes, (40,), generator=generator)
    found = TopAccuracy(topk=(1, 5)).compute_metrics(
        [dict(pred_score=s, gt_label=label[None]) for s, label in zip(scores, labels, strict=True)]
    )
    ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
    for k in (1, 5):
        assert found[f'top{k}'] == pytest.approx((ranks < k).float().mean().item(), abs=1e-6)


@pytest.fixture
def folders(tmp_path):
    """Images of three classes in train and val."""
    for split in ('train', 'val'):
        for name in ('ants', 'bees', 'wasps'):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                cv2.imwrite(str(tmp_path / split / name / f'{i}.png'), np.full((40, 60, 3), 30 * i, np.uint8))
    return tmp_path


def test_folders_of_classes_are_data(folders):
    source = find_data(folders, 'classes')
    assert (source.format, source.classes, set(source.splits)) == (
        'folders',
        ('ants', 'bees', 'wasps'),
        {'train', 'val'},
    )
    cfg = load_config('classify/yolo11n_imagenet')
    set_common_options(cfg, data=folders, imgsz=(64, 64))
    assert cfg.model.head.num_classes == 3
    assert {step['size'] for step in cfg.train_dataloader.dataset.pipeline if 'size' in step} == {64}
    dataset = ImageFolder(data_root=str(folders / 'train'))
    assert len(dataset) == 6
    assert dataset.get_data_info(5)['gt_label'] == 2


def spoil_empty(root):
    for file in (root / 'train/bees').iterdir():
        file.unlink()


def spoil_image(root):
    (root / 'train/bees/0.png').write_text('no image')


def keep_one(root):
    import shutil

    shutil.rmtree(root / 'train/bees'), shutil.rmtree(root / 'train/wasps')


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (spoil_empty, "no image in the folder of class 'bees': add some, or remove it"),
        (spoil_image, r'1 files are no images:\n  .*bees/0.png: damaged or not an image'),
        (keep_one, 'has 1 folder of classes, and a classifier tells at least two apart'),
    ],
)
def test_folders_that_are_refused(folders, spoil, message):
    spoil(folders)
    with pytest.raises(UserError, match=message):
        ImageFolder(data_root=str(folders / 'train'))


def test_data_that_is_refused(folders, tmp_path):
    (folders / 'val/hornets').mkdir()
    with pytest.raises(UserError, match="train and val have other classes, such as 'hornets'"):
        find_data(folders, 'classes')
    with pytest.raises(UserError, match=r'are in train/CLASS/ and val/CLASS/ there; found neither'):
        find_data(folders / 'train', 'classes')
    with pytest.raises(UserError, match='invalid --imgsz 64x96: images of a classifier are square'):
        set_common_options(load_config('classify/yolo11n_imagenet'), imgsz=(64, 96))


def test_digit_crops_are_the_same_every_time(tmp_path):
    few = {'train': 12, 'val': 4}
    first, second = (make_digit_crops(tmp_path / name, splits=few) for name in ('a', 'b'))
    files = sorted(path.relative_to(first) for path in first.rglob('*.png'))
    assert len(files) == 16
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()
        assert cv2.imread(str(first / file)).shape == (64, 64, 3)


WITHOUT = """
import sys
sys.modules['mmpretrain'] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'mmpretrain' else find(name, *rest)
from mmdyn.running import load_config
try:
    load_config('classify/yolo11n_imagenet')
except Exception as e:
    print(type(e).__name__, e)
"""


def test_without_mmpretrain_one_line_says_how_to_get_it():
    done = subprocess.run([sys.executable, '-c', WITHOUT], capture_output=True, text=True)
    assert 'UserError classification needs mmpretrain: pip install mmpretrain==1.2.0' in done.stdout, done.stderr


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(classes=['3']),
            '--classes and --single-cls are for objects: the classes of a classifier are its folders',
        ),
        (dict(single_class=True), '--classes and --single-cls are for objects'),
        (dict(multi_scale=True), '--multi-scale is for models that find objects: omit it'),
    ],
    ids=str,
)
def test_options_of_objects_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        set_training_options(load_config('classify/yolo11n_digits'), **options)
