"""FLOPs and parameters against a hand formula and the golden figures."""

from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config
from torch import nn

from conftest import ROOT
from mmdyn import DynamicConv
from mmdyn.analysis.flops import count_cost
from mmdyn.errors import UserError
from mmdyn.models.build import build_model

GOLDEN = {  # GFLOPs at 640, two for every multiply-add
    ('yolo11n_coco', 80): 6.543,
    ('yolo11n_dynconv_coco', 80): 6.548,
    ('yolo11n_c3k2_dynconv_coco', 80): 6.544,
    ('yolo11n_coco', 25): 6.398,
    ('yolo11n_dynconv_coco', 25): 6.403,
    ('yolo11n_c3k2_dynconv_coco', 25): 6.400,
}


def model_of(name: str, classes: int = 80) -> nn.Module:
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    cfg.model.bbox_head.head_module.num_classes = classes
    return build_model(cfg)


@pytest.mark.parametrize(('name', 'classes'), GOLDEN)
def test_golden_flops(name, classes):
    assert count_cost(model_of(name, classes), 640, 640).flops / 1e9 == pytest.approx(GOLDEN[name, classes], abs=5e-4)


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of mmdet's own transformers
@pytest.mark.parametrize('name', ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'detr/detr_r50_8xb2-150e_coco'])
def test_detectors_of_mmdet_are_counted(name):
    """They want to know the size of the image."""
    cfg = Config.fromfile(f'{Path(mmdet.__file__).parent}/.mim/configs/{name}.py')
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg)
    cost = count_cost(model, 64, 96)
    assert cost.by_part['head'] > 0
    assert cost.by_part['backbone'] == pytest.approx(count_cost(OneLayer(model.backbone), 64, 96).macs)


def test_a_size_that_does_not_fit_is_named():
    with pytest.raises(UserError, match=r'YOLO11Detector does not accept 65 x 64 pixels.*multiples of 32'):
        count_cost(model_of('yolo11n_coco'), 65, 64)


class OneLayer(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.backbone = layer

    def forward(self, inputs, data_samples, mode):
        return self.backbone(inputs)


@pytest.mark.parametrize(('stride', 'groups', 'experts'), [(1, 1, 4), (2, 1, 3), (2, 3, 5)])
def test_dynamic_convolution_by_formula(stride, groups, experts):
    layer = DynamicConv(3, 6, 3, stride, 1, groups=groups, num_experts=experts)
    cost = count_cost(OneLayer(layer), 16, 24)
    kernel = 6 * 3 // groups * 9
    convolution = kernel * (16 // stride) * (24 // stride)
    mixing, router = experts * kernel, 3 * experts
    assert cost.macs == convolution + mixing + router
    assert cost.flops == 2 * cost.macs
    assert cost.parameters == experts * kernel + experts * 4


def test_parts_add_up():
    cost = count_cost(model_of('yolo11n_dynconv_coco'), 320, 320)
    assert set(cost.by_part) == {'backbone', 'neck', 'head'}
    assert sum(cost.by_part.values()) == cost.macs


def test_dynamics_cost_a_thousandth():
    static, dynamic = (count_cost(model_of(f'yolo11n{v}_coco'), 640, 640) for v in ('', '_dynconv'))
    assert 0 < dynamic.macs - static.macs < 0.001 * static.macs


def test_building_leaves_the_config_as_it_is():
    cfg = Config.fromfile(ROOT / 'configs/yolo11n_coco.py')
    before = cfg.pretty_text
    build_model(cfg)
    assert cfg.pretty_text == before
