"""Priors are exact in half precision, and with them the loss of large images."""

import pytest
import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmengine.config import Config

from conftest import ROOT
from mmdyn.models.build import build_model

SIZES = [(160, 160), (80, 80), (40, 40)]  # of 1280 pixels


@pytest.fixture(params=['YOLO11PointGenerator', 'mmdet.MlvlPointGenerator'])
def head(request):
    """The head of the configs, and of one written before they named the generator."""
    cfg = Config.fromfile(ROOT / 'configs/yolo11n_coco.py')
    cfg.model.bbox_head.head_module.num_classes = 2
    cfg.model.bbox_head.prior_generator.type = request.param
    return build_model(cfg).bbox_head


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_priors_are_those_of_float32(head, dtype):
    exact = MlvlPointGenerator(head.featmap_strides).grid_priors(SIZES, torch.float32, 'cpu', with_stride=True)
    for ours, expected in zip(head.prior_generator.grid_priors(SIZES, dtype, 'cpu', with_stride=True), exact):
        assert ours.dtype == torch.promote_types(dtype, torch.float32)
        assert torch.equal(ours.float(), expected)


def test_loss_of_a_large_image_in_bfloat16(head):
    """The same logits, rounded to bfloat16: the loss may differ by that rounding, not by another assignment."""
    logits = [torch.randn(1, 2, *size).bfloat16() for size in SIZES]
    distances = [torch.rand(1, 4, *size) * 12 for size in SIZES]
    bins = [torch.randn(1, h * w, 4, 16) for h, w in SIZES]
    truth = torch.tensor([[0, 1, 1100.0, 1120, 1270, 1260], [0, 0, 1030, 40, 1090, 90]])
    meta = [dict(img_shape=(1280, 1280), batch_input_shape=(1280, 1280))]
    half = head.loss_by_feat(logits, distances, bins, truth, meta)
    head.featmap_sizes_train = None
    full = head.loss_by_feat([level.float() for level in logits], distances, bins, truth, meta)
    for name, loss in full.items():
        assert half[name].float() == pytest.approx(loss, rel=5e-3), name
