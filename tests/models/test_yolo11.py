"""YOLO11: golden counts, MMYOLO's contracts, and every layer against its definition."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmyolo.registry import MODELS
from torch import nn

from conftest import ROOT
from mmdyn import DynamicConv, load_model
from mmdyn.layers import C2PSA, SPPF, C3k2, C3k2_DynamicConv
from mmdyn.layers.c2psa import Attention
from mmdyn.models import YOLO11PAFPN, YOLO11Backbone, YOLO11HeadModule
from mmdyn.running import load_checkpoint_model

# Published counts minus the 16 weights of the DFL projection, which is a buffer here.
STATIC = {'n': 2_624_064, 's': 9_458_736, 'm': 20_114_672, 'l': 25_372_144, 'x': 56_966_160}
DYNAMIC = {
    ('dynconv', 80): 4_629_336,
    ('dynconv', 25): 4_599_971,
    ('c3k2_dynconv', 80): 3_264_108,
    ('c3k2_dynconv', 25): 3_234_743,
}


def build(config: str, **options) -> nn.Module:
    cfg = Config.fromfile(ROOT / 'configs' / config)
    cfg.merge_from_dict(options)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        return MODELS.build(cfg.model)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('scale', STATIC)
def test_golden_count_of_every_scale(scale):
    assert count(build(f'yolo11{scale}_coco.py')) == STATIC[scale]


@pytest.mark.parametrize(('variant', 'classes'), DYNAMIC)
def test_golden_count_of_the_dynamic_variants(variant, classes):
    model = build(f'yolo11n_{variant}_coco.py', **{'model.bbox_head.head_module.num_classes': classes})
    assert count(model) == DYNAMIC[variant, classes]


def added_by_dynamics(model: nn.Module) -> int:
    """Parameters of a dynamic model beyond the static one: experts and routers, less the norms that are gone."""
    return sum(
        (m.num_experts - 1) * m.weight.shape[1] + m.num_experts * (m.in_channels + 1) - 2 * m.out_channels
        for m in model.modules()
        if isinstance(m, DynamicConv)
    )


@pytest.mark.parametrize('scale', STATIC)
@pytest.mark.parametrize('variant', ['dynconv', 'c3k2_dynconv'])
def test_count_of_every_dynamic_scale_by_formula(scale, variant):
    model = build(f'yolo11{scale}_{variant}_coco.py')
    assert count(model) == STATIC[scale] + added_by_dynamics(model)


def test_dynamic_convolutions_stand_where_they_should():
    model = build('yolo11n_dynconv_coco.py')
    names = [name for name, m in model.named_modules() if isinstance(m, DynamicConv)]
    assert names == [f'backbone.stage{n}.0' for n in (1, 2, 3, 4)] + [f'neck.downsample_layers.{n}' for n in (0, 1)]
    model = build('yolo11n_c3k2_dynconv_coco.py')
    names = [name for name, m in model.named_modules() if isinstance(m, DynamicConv)]
    assert all(name.endswith('.conv2') for name in names)
    # One a bottleneck in the six plain blocks, two in each of the two C3k; scale n has one inner module a block.
    assert len(names) == 5 + 3 * 2


def test_norm_and_activation_after_a_dynamic_convolution():
    unit = dict(type='ConvModule', conv_cfg=dict(type='mmdyn.DynamicConv', num_experts=2))
    backbone = YOLO11Backbone(deepen_factor=0.5, widen_factor=0.25, downsample_cfg=unit)
    assert type(backbone.stage1[0].conv) is DynamicConv
    assert type(backbone.stage1[0].bn) is nn.BatchNorm2d
    assert type(backbone.stage1[0].activate) is nn.SiLU


N = dict(deepen_factor=0.5, widen_factor=0.25)


@pytest.mark.parametrize('size', [(64, 64), (96, 160)], ids=str)
@pytest.mark.parametrize('batch', [1, 3])
def test_shapes(size, batch):
    h, w = size
    features = YOLO11Backbone(**N)(torch.randn(batch, 3, h, w))
    assert [tuple(f.shape) for f in features] == [
        (batch, c, h // s, w // s) for c, s in ((128, 8), (128, 16), (256, 32))
    ]
    outputs = YOLO11PAFPN([512, 512, 1024], [256, 512, 1024], **N)(features)
    assert [tuple(o.shape) for o in outputs] == [(batch, c, h // s, w // s) for c, s in ((64, 8), (128, 16), (256, 32))]
    head = YOLO11HeadModule(num_classes=7, in_channels=[256, 512, 1024], widen_factor=0.25)
    logits, distances, bins = head(outputs)
    assert [tuple(t.shape) for t in logits] == [(batch, 7, h // s, w // s) for s in (8, 16, 32)]
    assert [tuple(t.shape) for t in distances] == [(batch, 4, h // s, w // s) for s in (8, 16, 32)]
    assert [tuple(t.shape) for t in bins] == [(batch, h * w // s**2, 4, 16) for s in (8, 16, 32)]


@pytest.mark.parametrize('out_indices', [(0,), (1, 4), (0, 1, 2, 3, 4)], ids=str)
def test_out_indices(out_indices):
    outputs = YOLO11Backbone(out_indices=out_indices, **N)(torch.randn(1, 3, 64, 64))
    assert [o.shape[-1] for o in outputs] == [32 // 2**i for i in out_indices]


@pytest.mark.parametrize('frozen', [-1, 0, 2, 4])
def test_frozen_stages(frozen):
    backbone = YOLO11Backbone(frozen_stages=frozen, **N)
    backbone.train()
    for index, name in enumerate(backbone.layers):
        layer = getattr(backbone, name)
        assert all(p.requires_grad == (index > frozen) for p in layer.parameters())
        assert all(m.training == (index > frozen) for m in layer.modules())


def test_norm_eval():
    backbone = YOLO11Backbone(norm_eval=True, **N)
    backbone.train()
    assert backbone.training
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_plugins():
    plugin = dict(cfg=dict(type='GeneralizedAttention', num_heads=1), stages=(False, False, False, True))
    plain, plugged = YOLO11Backbone(**N), YOLO11Backbone(plugins=[plugin], **N)
    assert len(plugged.stage4) == len(plain.stage4) + 1
    assert len(plugged.stage3) == len(plain.stage3)
    assert plugged(torch.randn(1, 3, 64, 64))[-1].shape == (1, 256, 2, 2)


def test_init_cfg_is_obeyed():
    backbone = YOLO11Backbone(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5), **N)
    backbone.init_weights()
    # MMEngine lets the stem, a ConvModule and direct child, draw its weights after that, as in MMYOLO's backbones.
    convs = [m for m in backbone.stage1.modules() if isinstance(m, nn.Conv2d)]
    assert convs
    assert all((m.weight == 0.5).all() for m in convs)


def test_pretrained_init_cfg(tmp_path):
    source = YOLO11Backbone(**N)
    torch.save(source.state_dict(), tmp_path / 'backbone.pth')
    backbone = YOLO11Backbone(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth')), **N)
    backbone.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), backbone.parameters(), strict=True))


def test_freeze_all():
    neck = YOLO11PAFPN([512, 512, 1024], [256, 512, 1024], freeze_all=True, **N)
    neck.train()
    assert not any(p.requires_grad for p in neck.parameters())


def test_two_models_in_one_process_do_not_share_a_table():
    first = YOLO11Backbone(last_stage_out_channels=512, **N)
    second = YOLO11Backbone(**N)
    assert first(torch.randn(1, 3, 64, 64))[-1].shape[1] == 128
    assert second(torch.randn(1, 3, 64, 64))[-1].shape[1] == 256


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [(dict(arch='P7'), "arch must be one of \\['P5'\\], got 'P7'"), (dict(frozen_stages=9), 'frozen_stages')],
    ids=['arch', 'frozen_stages'],
)
def test_backbone_says_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=message):
        YOLO11Backbone(**kwargs)


def test_attention_equals_a_plain_loop_over_heads_and_positions():
    attention = Attention(128).double().eval()
    x = torch.randn(2, 128, 3, 4, dtype=torch.float64)
    qkv = attention.qkv(x).flatten(2)  # (B, 2 heads x (q 32, k 32, v 64), N)
    attended, values = [], []
    for head in range(2):
        q, k, v = qkv[:, head * 128 : (head + 1) * 128].split((32, 32, 64), dim=1)
        out = torch.zeros_like(v)
        for n in range(12):
            weights = torch.softmax((q[:, :, n : n + 1] * k).sum(1) * 32**-0.5, dim=-1)  # (B, keys)
            out[:, :, n] = (v * weights[:, None]).sum(2)
        attended.append(out)
        values.append(v)
    attended, values = (torch.cat(t, dim=1).view(2, 128, 3, 4) for t in (attended, values))
    expected = attention.proj(attended + attention.position(values))
    torch.testing.assert_close(attention(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('channels', [32, 192 + 1])
def test_attention_refuses_what_it_cannot_split(channels):
    with pytest.raises(ValueError, match='at least 64 channels|odd|even|divide'):
        Attention(channels)


def test_sppf_pools_like_one_large_window():
    layer = SPPF(8, 8).eval()
    x = torch.randn(1, 8, 11, 9)
    hidden = layer.conv1(x)
    pools = [nn.functional.max_pool2d(hidden, k, 1, k // 2) for k in (5, 9, 13)]
    torch.testing.assert_close(layer(x), layer.conv2(torch.cat([hidden, *pools], dim=1)))


@pytest.mark.parametrize('block', [C3k2, C3k2_DynamicConv])
@pytest.mark.parametrize('c3k', [False, True])
def test_c3k2_shortcut_and_gradients(block, c3k):
    layer = block(16, 32, num_blocks=2, c3k=c3k)
    x = torch.randn(2, 16, 5, 7)
    y = layer(x)
    assert y.shape == (2, 32, 5, 7)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    without = block(16, 32, num_blocks=2, c3k=c3k, add_identity=False)
    without.load_state_dict(layer.state_dict())
    assert not torch.allclose(layer.eval()(x), without.eval()(x))


def test_c3k2_dynamic_options_reach_every_convolution():
    layer = C3k2_DynamicConv(16, 16, num_blocks=2, c3k=True, num_experts=3, routing='softmax', temperature=5.0)
    convs = [m for m in layer.modules() if isinstance(m, DynamicConv)]
    assert len(convs) == 4
    assert {(m.num_experts, m.router.activation, m.router.temperature) for m in convs} == {(3, 'softmax', 5.0)}


def test_c2psa_passes_half_of_the_channels_by():
    layer = C2PSA(128).eval()
    with torch.no_grad():
        layer.final_conv.conv.weight[:, 64:] = 0  # only what passed by counts
        x = torch.randn(1, 128, 4, 4)
        before = layer(x)
        for p in layer.blocks.parameters():
            p.add_(1)
        assert torch.equal(layer(x), before)


@pytest.mark.parametrize('variant', ['', '_dynconv', '_c3k2_dynconv'])
def test_initialisation(variant):
    model = build(f'yolo11n{variant}_coco.py')
    model.init_weights()
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            fan_in = m.weight[0].numel()
            assert m.weight.abs().max() <= fan_in**-0.5, name  # PyTorch's default: kaiming-uniform, a = sqrt(5)
        if isinstance(m, nn.BatchNorm2d):
            assert (m.eps, m.momentum) == (1e-3, 0.03)
            assert (m.weight == 1).all()
    head = model.bbox_head.head_module
    for stride, cls, reg in zip((8, 16, 32), head.cls_preds, head.reg_preds, strict=True):
        expected = torch.log(torch.tensor(5 / 80 / (640 / stride) ** 2))
        torch.testing.assert_close(cls[-1].bias.data, expected.expand(80))
        assert (reg[-1].bias == 1).all()


def test_head_decodes_like_mmyolos_and_in_float32_under_autocast():
    from mmyolo.models.dense_heads import YOLOv8HeadModule

    head = YOLO11HeadModule(num_classes=3, in_channels=[256, 512, 1024], widen_factor=0.25)
    x = torch.randn(2, 64, 5, 7)
    args = (x, head.cls_preds[0], head.reg_preds[0])
    for ours, theirs in zip(head.forward_single(*args), YOLOv8HeadModule.forward_single(head, *args), strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.autocast('cpu', torch.bfloat16):
        _, distances, bins = head.forward_single(*args)
    assert distances.dtype == bins.dtype == torch.float32
    expected = (bins.softmax(3) * torch.arange(16)).sum(3).transpose(1, 2).reshape(2, 4, 5, 7)
    torch.testing.assert_close(distances, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('scope', ['mmdet', 'mmengine', 'mmyolo'])
def test_yolo11_builds_in_every_scope_and_takes_our_dynamic_convolution(scope):
    dynamic = dict(downsample_cfg=dict(type='DynamicConv'), block_cfg=dict(type='C3k2_DynamicConv'))
    with DefaultScope.overwrite_default_scope(scope):
        backbone = YOLO11Backbone(**N, **dynamic)
        neck = YOLO11PAFPN([512, 512, 1024], [256, 512, 1024], **N, **dynamic)
    assert type(backbone.stage1[0]) is type(neck.downsample_layers[0]) is DynamicConv


@pytest.mark.parametrize('widen', [0.33, 0.75])
def test_any_width(widen):
    scale = dict(deepen_factor=0.5, widen_factor=widen)
    features = YOLO11Backbone(**scale)(torch.randn(1, 3, 64, 64))
    outputs = YOLO11PAFPN([512, 512, 1024], [256, 512, 1024], **scale)(features)
    assert [o.shape[-1] for o in outputs] == [8, 4, 2]


@pytest.mark.parametrize('variant', ['dynconv', 'dynconv-bn', 'c3k2_dynconv', 'c3k2_dynconv-bn'])
def test_a_folded_detector_computes_the_same(alike, variant):
    import copy

    from mmdyn.layers import fold_batch_norms
    from mmdyn.surgery.upcycle import output_difference

    model = load_checkpoint_model(*alike(f'yolo11n_{variant}_coco.py')).model
    folded = fold_batch_norms(copy.deepcopy(model))
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    shared = [m.shared_bias is not None for m in folded.modules() if isinstance(m, DynamicConv)]
    assert shared == [variant.endswith('-bn')] * len(shared)
    assert output_difference(folded, model) <= 1e-5


@pytest.mark.parametrize('clip', [True, False])
def test_boxes_are_clipped_to_the_image_where_the_config_says_so(alike, clip):
    cfg, checkpoint = alike('yolo11n_digits.py', **{'model.test_cfg.clip_boxes': clip})
    image = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8).numpy()
    boxes = load_model(cfg, checkpoint, 'cpu')(image, score=0.001).pred_instances.bboxes
    inside = (boxes >= 0).all() and (boxes <= torch.tensor([96, 64, 96, 64])).all()
    assert len(boxes) > 10
    assert bool(inside) == clip
