"""Every ablation config: short, built, and of exactly the parameters that a formula says."""

import re
from functools import cache

import pytest
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as CONSTRUCTORS
from torch import nn

from conftest import ROOT
from mmdyn import DynamicConv
from mmdyn.ablation.fairness import check_comparable
from mmdyn.layers import dynamic_layers
from mmdyn.models.build import build_model

FOLDER = ROOT / 'configs/ablations'
DOWN, BLOCK = r'(backbone\.stage\d\.0|neck\.downsample_layers\.\d)', r'.*\.blocks\.\d\.conv2'
P3, P4, P5 = (
    r'backbone\.stage2\.0',
    r'(backbone\.stage3\.0|neck\.downsample_layers\.0)',
    r'(backbone\.stage4\.0|neck\.downsample_layers\.1)',
)

# What is dynamic (a pattern of names of the static detector), experts, bare, and what else adds parameters.
EXPECTED = {
    'dynconv-bn_experts1': (DOWN, 1, False),
    'dynconv-bn_experts2': (DOWN, 2, False),
    'dynconv-bn_experts8': (DOWN, 8, False),
    'dynconv-bn_experts16': (DOWN, 16, False),
    'dynconv-bn_softmax': (DOWN, 4, False),
    'dynconv-bn_softmax-t30': (DOWN, 4, False),
    'dynconv-bn_softmax-annealed': (DOWN, 4, False),
    'dynconv-bn_router-lr10': (DOWN, 4, False),
    'dynconv-bn_backbone': (r'backbone\.stage\d\.0', 4, False),
    'dynconv-bn_neck': (r'neck\.downsample_layers\.\d', 4, False),
    'dynconv-bn_p3': (P3, 4, False),
    'dynconv-bn_p4': (P4, 4, False),
    'dynconv-bn_p5': (P5, 4, False),
    'dynconv_bias': (DOWN, 4, True),
    'dynconv_groups2': (DOWN, 4, True),
    'c3k2_dynconv': (BLOCK, 4, True),
    'c3k2_dynconv-bn': (BLOCK, 4, False),
    'c3k2_dynconv_shared-router': (BLOCK, 4, True),
    'both_dynconv': (f'({DOWN}|{BLOCK})', 4, True),
    'both_dynconv-bn': (f'({DOWN}|{BLOCK})', 4, False),
    'dynconv-bn_mlp': (DOWN, 4, False),
    'dynconv-bn_mlp-annealed': (DOWN, 4, False),
    'dynconv-bn_normalised': (DOWN, 4, False),
    'dynconv-bn_normalised-mlp': (DOWN, 4, False),
    'dynconv-bn_top2': (DOWN, 4, False),
    'dynconv-bn_uniform': (DOWN, 4, False),
    'odconv-bn_experts1': (DOWN, 1, False),
    'odconv-bn_experts4': (DOWN, 4, False),
    'fdconv-bn': (DOWN, 1, False),  # bands of one kernel
    'c3k2_odconv-bn': (BLOCK, 1, False),
    'c3k2_fdconv-bn': (BLOCK, 1, False),
}


def _attention(inputs: int, outputs: int, taps: int, experts: int) -> int:
    """Parameters of ODConv's attention."""
    features = max(inputs // 16, 16)
    routed = experts if experts > 1 else 0
    return inputs * features + (features + 1) * (inputs + outputs + taps + routed)


# Parameters of what weighs the kernels of a layer, by its inputs, outputs and taps; elsewhere a linear layer.
ROUTERS = {
    'dynconv-bn_mlp': lambda i, o, k: i * i + 4 * (i + 1),
    'dynconv-bn_normalised-mlp': lambda i, o, k: i * i + 4 * (i + 1),
    'dynconv-bn_mlp-annealed': lambda i, o, k: i * (i // 4) + 4 * (i // 4 + 1),
    'dynconv-bn_uniform': lambda i, o, k: 0,
    'c3k2_dynconv_shared-router': lambda i, o, k: 0,  # one for a block
    'odconv-bn_experts1': lambda i, o, k: _attention(i, o, k, 1),
    'odconv-bn_experts4': lambda i, o, k: _attention(i, o, k, 4),
    'c3k2_odconv-bn': lambda i, o, k: _attention(i, o, k, 1),
    'fdconv-bn': lambda i, o, k: 4 * (i + 1),
    'c3k2_fdconv-bn': lambda i, o, k: 4 * (i + 1),
}
DATA = ('digits', 'bccd', 'deeppcb')
STATIC_WIDE = {'digits': 4_646_284, 'bccd': 4_644_415}
NAMES = sorted(p.stem.removeprefix('yolo11n_') for p in FOLDER.glob('*.py'))


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f'yolo11n_{name}.py')


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@cache
def built(name: str) -> nn.Module:
    return build_model(load(name))


@pytest.fixture(scope='module')
def static():
    return {d: build_model(Config.fromfile(ROOT / f'configs/yolo11n_{d}.py')) for d in DATA}


def test_the_configs_are_those_promised():
    study = ('c3k2_dynconv', 'both_dynconv', *(f'dynconv-bn_experts{m}' for m in (1, 2, 8)), 'static-wide')
    routed = ('dynconv-bn_normalised', 'dynconv-bn_normalised-mlp', 'dynconv-bn_uniform')
    routed += ('odconv-bn_experts1', 'odconv-bn_experts4')
    named = {'digits': (*EXPECTED, 'static-wide'), 'bccd': (*study, *routed, 'dynconv-bn_mlp'), 'deeppcb': routed}
    assert set(NAMES) == {f'{name}_{data}' for data, names in named.items() for name in names}
    listed = re.findall(r'^\| `yolo11n_(\S+)` \| .* \| ([\d,]+) \|$', (FOLDER / 'README.md').read_text(), re.M)
    assert sorted(name for name, _ in listed) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_the_list_of_configs_states_its_parameters(name):
    row = re.search(rf'`yolo11n_{name}` .* ([\d,]+) \|', (FOLDER / 'README.md').read_text())
    assert int(row[1].replace(',', '')) == count(built(name))


@pytest.mark.parametrize('name', NAMES)
def test_is_a_diff_that_may_be_compared_with_the_static_detector(name):
    lines = (FOLDER / f'yolo11n_{name}.py').read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith('#')]) <= 12
    data = name.rpartition('_')[2]
    check_comparable({'static': Config.fromfile(ROOT / f'configs/yolo11n_{data}.py'), name: load(name)})


def parameters(units: dict[str, nn.Module], experts: int, bare: bool, bias: bool, groups: int, router) -> int:
    """What making these Conv + BN + SiLU units dynamic adds to a static detector."""
    added = 0
    for unit in units.values():
        inputs, outputs, (height, width) = unit.conv.in_channels, unit.conv.out_channels, unit.conv.kernel_size
        kernel = outputs * inputs * height * width
        added += experts * kernel // groups - kernel
        added += router(inputs, outputs, height * width)
        added += experts * outputs if bias else 0
        added -= 2 * outputs if bare else 0  # scale and shift of the batch norm
    return added


@pytest.mark.parametrize('name', [n for n in NAMES if not n.startswith('static')])
def test_has_the_parameters_of_the_formula(name, static):
    variant, _, data = name.rpartition('_')
    where, experts, bare = EXPECTED[variant]
    units = {n: m for n, m in static[data].named_modules() if re.fullmatch(where, n)}
    assert units
    shared = variant.endswith('shared-router')
    expected = count(static[data]) + parameters(
        units,
        experts,
        bare,
        variant.endswith('bias'),
        2 if variant.endswith('groups2') else 1,
        ROUTERS.get(variant, lambda i, o, k: experts * (i + 1)),
    )
    if shared:  # one router for every block, on its hidden channels
        blocks = {
            n: m
            for n, m in static[data].named_modules()
            if re.fullmatch(r'(backbone\.stage\d\.1|neck\.(top_down|bottom_up)_layers\.\d)', n)
        }
        expected += sum(experts * (block.main_conv.out_channels // 2 + 1) for block in blocks.values())
    model = built(name)
    assert count(model) == expected
    assert {n.removesuffix('.conv') for n in dynamic_layers(model)} == set(units)


@pytest.mark.parametrize('data', STATIC_WIDE)
def test_the_wide_static_detector_has_the_parameters_of_the_dynamic_one(data):
    model = build_model(load(f'static-wide_{data}'))
    assert count(model) == STATIC_WIDE[data]
    assert not dynamic_layers(model)
    dynamic = count(build_model(Config.fromfile(ROOT / f'configs/yolo11n_dynconv-bn_{data}.py')))
    assert 1 <= count(model) / dynamic < 1.02


OPTIONS = {
    'experts': ('num_experts', 16, lambda layer: layer.num_experts),
    'softmax': ('routing', 'softmax', lambda layer: layer.router.activation),
    'temperature': ('temperature', 30.0, lambda layer: layer.router.temperature),
}


@pytest.mark.parametrize(('option', 'value', 'read'), OPTIONS.values(), ids=OPTIONS)
def test_cfg_options_reach_every_option_of_the_layer(option, value, read):
    cfg = Config.fromfile(ROOT / 'configs/yolo11n_dynconv-bn_digits.py')
    cfg.merge_from_dict({f'model.{part}.downsample_cfg.conv_cfg.{option}': value for part in ('backbone', 'neck')})
    layers = dynamic_layers(build_model(cfg)).values()
    assert {read(layer) for layer in layers} == {value}


def test_options_of_a_config_are_what_its_name_says():
    layers = {n: list(dynamic_layers(build_model(load(f'{n}_digits'))).values()) for n in EXPECTED if '_' in n}
    assert {layer.router.activation for layer in layers['dynconv-bn_softmax-annealed']} == {'softmax'}
    assert {layer.router.temperature for layer in layers['dynconv-bn_softmax-t30']} == {30.0}
    assert {layer.groups for layer in layers['dynconv_groups2']} == {2}
    assert all(isinstance(layer, DynamicConv) for group in layers.values() for layer in group)


def test_routers_learn_faster_and_without_decay():
    cfg = load('dynconv-bn_router-lr10_digits')
    model = build_model(cfg)
    wrapper_cfg = cfg.optim_wrapper.to_dict()
    paramwise = wrapper_cfg.pop('paramwise_cfg')
    constructor = dict(type=wrapper_cfg.pop('constructor'), paramwise_cfg=paramwise)
    optimizer = CONSTRUCTORS.build(dict(constructor, optim_wrapper_cfg=wrapper_cfg))(model).optimizer
    names = {id(p): n for n, p in model.named_parameters()}
    groups = [({names[id(p)] for p in g['params']}, g['lr'], g['weight_decay']) for g in optimizer.param_groups]
    assert sorted(n for g, *_ in groups for n in g) == sorted(names.values())
    routers = {n for n in names.values() if '.router.' in n}
    assert set().union(*(g for g, lr, decay in groups if (lr, decay) == (0.02, 0.0))) == routers
    assert {(lr, decay) for g, lr, decay in groups if not g & routers} == {(0.002, 0.0005), (0.002, 0.0)}
    assert 'bias' in next(iter(groups[2][0]))  # the schedule warms up the biases of this place
