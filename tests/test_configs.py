"""Every config loads, builds, is short, and trains every parameter it has."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as CONSTRUCTORS

from conftest import ROOT

CONFIGS = sorted(p.name for p in (ROOT / 'configs').glob('*.py'))
YOLO = [c for c in CONFIGS if c.startswith('yolo11')]
VARIANTS = ('', '_dynconv', '_c3k2_dynconv', '_dynconv-bn', '_c3k2_dynconv-bn')
EXPECTED = {
    *(f'yolo11{s}{v}_coco.py' for s in 'nsmlx' for v in VARIANTS),
    *(f'yolo11n{v}_{data}.py' for data in ('digits', 'bccd') for v in ('', '_dynconv', '_dynconv-bn')),
    *('yolo11n_deeppcb.py', 'yolo11n_dynconv-bn_deeppcb.py'),
    'yolo11n_dynconv_1xb4-150e_coco.py',
    'retinanet_dynconv_r50_fpn_1x_coco.py',
}


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def step_named(pipeline: list, kind: str) -> dict | None:
    return next((step for step in pipeline if step['type'] == kind), None)


def test_the_configs_are_those_promised():
    assert set(CONFIGS) == EXPECTED


@pytest.mark.parametrize('name', CONFIGS)
def test_is_a_diff_of_at_most_twelve_lines(name):
    lines = (ROOT / 'configs' / name).read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith('#')]) <= 12


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_and_the_optimizer_holds_every_trainable_parameter_once(name):
    cfg = load(name)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        wrapper_cfg = cfg.optim_wrapper.to_dict()
        constructor = dict(type=wrapper_cfg.pop('constructor', 'DefaultOptimWrapperConstructor'))
        wrapper = CONSTRUCTORS.build(dict(constructor, optim_wrapper_cfg=wrapper_cfg))(model)
    held = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    assert len(held) == len(set(held))
    assert {id(p) for p in model.parameters() if p.requires_grad} <= set(held)


@pytest.mark.parametrize('folder', ['copy_paste', 'segment'])
@pytest.mark.parametrize(('scale', 'share'), [('n', 0.1), ('s', 0.15), ('m', 0.4), ('l', 0.5), ('x', 0.6)])
def test_the_share_of_objects_that_are_pasted_is_that_of_the_scale(folder, scale, share):
    cfg = load(f'{folder}/yolo11{scale}_coco.py')
    pipeline = cfg.train_dataloader.dataset.pipeline
    for steps in (pipeline, step_named(pipeline, 'YOLO11MixUp').pre_transform):
        kinds = [step.type for step in steps]
        place = kinds.index('CopyPaste')
        assert kinds[place - 1 : place + 2] == ['BufferedMosaic', 'CopyPaste', 'YOLO11RandomAffine']
        assert steps[place].prob == share
        assert steps[place + 1] == step_named(pipeline, 'YOLO11RandomAffine')
    assert not step_named(cfg.last_epochs_pipeline, 'CopyPaste')
    assert not step_named(load(f'yolo11{scale}_coco.py').train_dataloader.dataset.pipeline, 'CopyPaste')


@pytest.mark.parametrize('folder', ['copy_paste', 'segment', 'pose'])
def test_every_model_of_coco_is_there_for_the_other_folders(folder):
    names = {path.name for path in (ROOT / 'configs' / folder).glob('*_coco.py')}
    assert names == {name for name in EXPECTED if name.startswith('yolo11') and name.endswith('_coco.py')} - {
        'yolo11n_dynconv_1xb4-150e_coco.py'
    }


def test_every_model_is_there_for_oriented_boxes():
    names = {path.name.removesuffix('_dota.py') for path in (ROOT / 'configs/obb').glob('*_dota.py')}
    assert names == {f'yolo11{scale}{variant}' for scale in 'nsmlx' for variant in VARIANTS}


@pytest.mark.parametrize('name', YOLO)
def test_states_the_class_count_once(name):
    assert str(load(name).to_dict()).count('num_classes') == 1


def test_published_recipe():
    cfg = load('yolo11n_coco.py')
    assert cfg.train_cfg.max_epochs == 600
    assert cfg.train_dataloader.batch_size == 16  # on eight devices
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.01, 0.937, 5e-4)
    schedule = cfg.default_hooks.param_scheduler
    assert (schedule.lr_factor, schedule.warmup_epochs, schedule.warmup_momentum) == (0.01, 3, 0.8)
    assert (schedule.warmup_bias_lr, schedule.nominal_batch_size) == (0.1, 64)
    ema, close = cfg.custom_hooks
    assert (ema.momentum, ema.gamma) == (1e-4, 2000)
    assert close.num_last_epochs == 10
    head = cfg.model.bbox_head
    assert (head.loss_bbox.loss_weight, head.loss_cls.loss_weight, head.loss_dfl.loss_weight * 4) == (7.5, 0.5, 1.5)
    assigner = cfg.model.train_cfg.assigner
    assert (assigner.topk, assigner.alpha, assigner.beta) == (10, 0.5, 6.0)


@pytest.mark.parametrize(
    ('scale', 'affine', 'mixup'),
    [('n', 0.5, 0.0), ('s', 0.9, 0.05), ('m', 0.9, 0.15), ('l', 0.9, 0.15), ('x', 0.9, 0.2)],
)
@pytest.mark.parametrize('variant', VARIANTS)
def test_published_augmentation_of_every_scale(scale, affine, mixup, variant):
    cfg = load(f'yolo11{scale}{variant}_coco.py')
    pipeline = cfg.train_dataloader.dataset.pipeline
    expected = pytest.approx((1 - affine, 1 + affine))
    assert step_named(pipeline, 'YOLO11MixUp')['prob'] == mixup
    for steps in (pipeline, cfg.last_epochs_pipeline, step_named(pipeline, 'YOLO11MixUp')['pre_transform']):
        step = step_named(steps, 'YOLO11RandomAffine')
        assert step['scaling_ratio_range'] == expected
        assert step['max_translate_ratio'] == 0.1
    colour = step_named(pipeline, 'YOLO11HSVRandomAug')
    assert (colour['hue_delta'], colour['saturation_delta'], colour['value_delta']) == (0.015, 0.7, 0.4)
    assert step_named(pipeline, 'mmdet.RandomFlip')['prob'] == 0.5
    assert step_named(pipeline, 'BufferedMosaic')
    assert step_named(cfg.last_epochs_pipeline, 'BufferedMosaic') is None


def test_one_line_makes_another_detector_dynamic():
    from mmdyn import DynamicConv

    cfg = load('retinanet_dynconv_r50_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    assert sum(isinstance(m, DynamicConv) for m in model.neck.modules()) == 8
    features = model.extract_feat(torch.randn(2, 3, 64, 64))
    assert [f.shape[1] for f in features] == [256] * 5


@pytest.mark.parametrize(
    ('name', 'size', 'flips'),
    [('yolo11n_coco.py', 640, 2), ('yolo11n_digits.py', 320, 1), ('yolo11n_dynconv_bccd.py', 320, 2)],
)
def test_test_time_augmentation_is_around_the_size_of_the_config(name, size, flips):
    sizes, flip, *_ = load(name).tta_pipeline[1]['transforms']
    assert {step['transforms'][0]['scale'] for step in sizes} == {(size, size), (size // 2,) * 2, (size * 3 // 2,) * 2}
    assert len(flip) == flips


def test_cfg_options_reach_the_experts():
    cfg = load('yolo11n_dynconv_coco.py')
    cfg.merge_from_dict(
        {'model.backbone.downsample_cfg.num_experts': 8, 'model.neck.downsample_cfg.routing': 'softmax'}
    )
    with DefaultScope.overwrite_default_scope('mmyolo'):
        model = MODELS.build(cfg.model)
    assert model.backbone.stage1[0].num_experts == 8
    assert model.neck.downsample_layers[0].router.activation == 'softmax'


@pytest.mark.parametrize('name', ['yolo11n_coco.py', 'yolo11n_bccd.py', 'yolo11n_digits.py'])
def test_what_is_padded_is_grey(name):
    """In every pipeline: whatever is added to a white image has three equal channels, those of the fill value."""
    cfg = load(name)
    resizes = [size['transforms'] for size in cfg.tta_pipeline[1]['transforms'][0]]
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.last_epochs_pipeline, cfg.test_pipeline, *resizes):
        steps = [s for s in pipeline if s['type'] in ('LongSideResize', 'LetterResize', 'YOLO11RandomAffine')]
        assert steps
        size = (700, 1000)  # more than what the border of a mosaic takes away
        results = dict(img=np.full((*size, 3), 255, np.uint8), img_shape=size, gt_ignore_flags=np.zeros(0, bool))
        results |= dict(gt_bboxes=HorizontalBoxes(torch.zeros(0, 4)), gt_bboxes_labels=np.zeros(0, np.int64))
        with DefaultScope.overwrite_default_scope('mmyolo'):
            for step in steps:
                small = {'scaling_ratio_range': (0.1, 0.1)} if 'Affine' in step['type'] else {}
                results = TRANSFORMS.build({**step, **small})(results)
        image = results['img']
        assert image.min() == 114
        assert (image == image[..., :1]).all()
