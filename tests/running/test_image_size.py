"""One place says the size of the images: everything that depends on it follows."""

import pytest
from mmyolo.registry import TRANSFORMS

from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.running import load_config
from mmdyn.running.image_size import image_size, set_image_size

CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('yolo11n_*.py'))


def sizes(cfg) -> dict:
    """Every size of a config by what has it."""
    mosaic, affine = (
        next(s for s in cfg.train_dataloader.dataset.pipeline if s['type'] == t)
        for t in ('BufferedMosaic', 'YOLO11RandomAffine')
    )
    last = {s['type']: s.get('scale') for s in cfg.last_epochs_pipeline}
    tta = cfg.tta_pipeline[1].transforms[0]
    return dict(
        mosaic=mosaic.img_scale,
        border=affine.border,
        last=last.get('LetterResize'),
        last_border=next(s.border for s in cfg.last_epochs_pipeline if s['type'] == 'YOLO11RandomAffine'),
        val=[s.scale for s in cfg.val_dataloader.dataset.pipeline if 'scale' in s],
        test=[s.scale for s in cfg.test_dataloader.dataset.pipeline if 'scale' in s],
        rectangles=cfg.val_dataloader.dataset.batch_shapes_cfg and cfg.val_dataloader.dataset.batch_shapes_cfg.img_size,
        tta=[t.transforms[0].scale for t in tta],
    )


EXPECTED = dict(
    mosaic=(416, 416),
    border=(-208, -208),
    last=(416, 416),
    last_border=(0, 0),
    val=[(416, 416)] * 2,
    test=[(416, 416)] * 2,
    rectangles=416,
    tta=[(416, 416), (224, 224), (640, 640)],  # from 1, 1/2 and 3/2 up to a multiple of 32
)


def test_a_size_reaches_everything():
    cfg = load_config('yolo11n_coco')
    set_image_size(cfg, 416, 416)
    assert sizes(cfg) == EXPECTED
    assert image_size(cfg) == (416, 416)


def test_an_option_and_a_config_say_it_in_a_line(tmp_path):
    assert sizes(load_config('yolo11n_coco', dict(img_scale=(416, 416)))) == EXPECTED
    assert sizes(load_config('yolo11n_coco', dict(img_scale=416))) == EXPECTED
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = '{ROOT / 'configs/yolo11n_coco.py'}'\nimg_scale = (416, 416)\n")
    cfg = load_config(str(config))
    assert sizes(cfg) == EXPECTED
    cfg.dump(str(tmp_path / 'dumped.py'))
    assert sizes(load_config(str(tmp_path / 'dumped.py'))) == EXPECTED


@pytest.mark.parametrize('name', CONFIGS)
def test_a_size_there_and_back_changes_nothing(name):
    cfg, untouched = load_config(name), load_config(name)
    height, width = image_size(cfg)
    set_image_size(cfg, 2 * height, 2 * width)
    assert cfg.train_dataloader != untouched.train_dataloader
    set_image_size(cfg, height, width)
    assert cfg.to_dict() == untouched.to_dict() | dict(img_scale=(width, height))


def test_height_and_width_differ():
    cfg = load_config('yolo11n_coco')
    set_image_size(cfg, 384, 640)
    assert sizes(cfg) == dict(
        mosaic=(640, 384),
        border=(-320, -192),
        last=(640, 384),
        last_border=(0, 0),
        val=[(640, 384)] * 2,
        test=[(640, 384)] * 2,
        rectangles=None,
        tta=[(640, 384), (320, 192), (960, 576)],
    )
    resize = TRANSFORMS.build(cfg.val_dataloader.dataset.pipeline[1])
    import numpy as np

    for shape, expected in (((100, 200), (320, 640)), ((200, 100), (384, 192)), ((384, 640), (384, 640))):
        assert resize(dict(img=np.zeros((*shape, 3), np.uint8)))['img'].shape[:2] == expected


def test_sizes_are_rounded_up_and_said_so(capsys):
    cfg = load_config('yolo11n_coco')
    set_image_size(cfg, 400, 32)
    assert image_size(cfg) == (416, 32)
    assert 'image size 400 x 32: rounded up to 416 x 32, multiples of 32' in capsys.readouterr().out


@pytest.mark.parametrize('size', [(0, 640), (-32, -32), (640, 0)])
def test_no_size(size):
    with pytest.raises(UserError, match=f'invalid image size {size[0]} x {size[1]}: set both sides to 1 pixel or more'):
        set_image_size(load_config('yolo11n_coco'), *size)


def test_a_size_that_some_step_has_is_left_alone():
    """A config of MMDetection's habit may test at another size than it trains at."""
    cfg = load_config('yolo11n_coco', {'img_scale': (640, 640), 'val_dataloader.dataset.pipeline.1.scale': (320, 320)})
    assert cfg.train_dataloader.dataset.pipeline[2].img_scale == (640, 640)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (320, 320)
