"""The class count is stated once; a config of MMYOLO, which states it again, is accepted if it agrees."""

import pytest
from mmengine.config import Config

from conftest import ROOT
from mmdyn.models import build_model


def build(stated: int):
    cfg = Config.fromfile(ROOT / 'configs/yolo11n_coco.py')
    cfg.model.bbox_head.head_module.num_classes = 3
    cfg.model.train_cfg.assigner.num_classes = stated
    return build_model(cfg)


def test_a_second_count_that_agrees_is_accepted():
    assert build(3).bbox_head.num_classes == 3


def test_a_second_count_that_differs_is_named():
    with pytest.raises(
        ValueError, match=r'train_cfg.assigner.num_classes=80, but head_module.num_classes=3: remove the first'
    ):
        build(80)
