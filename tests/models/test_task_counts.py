"""Learned parameters of every task, scale and variant, as published; backbone and neck are those of detection."""

from functools import cache

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmdyn.running import load_config
from mmdyn.tasks import TASKS

SCALES = 'nsmlx'
COUNTS = {
    ('segment', ''): (2_876_832, 10_113_232, 22_420_880, 27_678_352, 62_142_640),
    ('segment', '_dynconv'): (4_882_104, 18_132_712, 47_418_792, 52_676_264, 118_384_840),
    ('segment', '_c3k2_dynconv'): (3_516_876, 12_671_996, 27_345_488, 37_527_568, 84_298_416),
    ('pose', ''): (2_874_446, 9_918_222, 20_912_348, 26_169_820, 58_798_620),
    ('pose', '_dynconv'): (4_879_718, 17_937_702, 45_910_260, 51_167_732, 115_040_820),
    ('pose', '_c3k2_dynconv'): (3_514_490, 12_476_986, 25_836_956, 36_019_036, 80_954_396),
    ('obb', ''): (2_664_416, 9_719_760, 20_913_392, 26_170_864, 58_800_240),
    ('obb', '_dynconv'): (4_669_688, 17_739_240, 45_911_304, 51_168_776, 115_042_440),
    ('obb', '_c3k2_dynconv'): (3_304_460, 12_278_524, 25_838_000, 36_020_080, 80_956_016),
}


@cache
def config(name):
    return load_config(name)


@cache
def count(name, *parts):
    """Learned parameters of parts of a model."""
    model = config(name).model
    init_default_scope('mmyolo')
    with torch.device('meta'):
        built = [MODELS.build(model.bbox_head.head_module if part == 'head' else model[part]) for part in parts]
    return sum(p.numel() for module in built for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize(('task', 'variant'), COUNTS)
def test_published_counts(task, variant, scale):
    here, detection = f'{task}/yolo11{scale}{variant}_{TASKS[task].data}', f'yolo11{scale}{variant}_coco'
    for part in ('backbone', 'neck'):
        assert config(here).model[part] == config(detection).model[part]
    static = f'{task}/yolo11{scale}_{TASKS[task].data}'
    assert config(here).model.bbox_head.head_module == config(static).model.bbox_head.head_module
    found = count(detection, 'backbone', 'neck') + count(static, 'head')
    assert found == COUNTS[task, variant][SCALES.index(scale)]
