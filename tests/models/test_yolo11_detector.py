"""Pooling over the valid area: routing does not see the padding of letterboxes."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from mmdyn.checkpoints import read_tensors
from mmdyn.datasets.digits import _split_materials, make_image
from mmdyn.inference.packaged import packaged
from mmdyn.layers import global_mean, record_routing
from mmdyn.layers.global_mean import valid_areas
from mmdyn.models import build_model
from mmdyn.models.yolo11_detector import image_areas
from mmdyn.running import load_config


def test_mean_over_areas_is_that_of_the_crops():
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    areas = torch.tensor([[0.25, 1.0, 0.0, 0.5], [0.0, 1.0, 0.0, 1.0]])
    with valid_areas(areas):
        same, mean = global_mean(x)
    assert same is x
    torch.testing.assert_close(mean, torch.stack([x[0, :, 2:, :5].mean((1, 2)), x[1].mean((1, 2))]))
    torch.testing.assert_close(global_mean(x)[1], x.mean((2, 3)))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_cells_on_the_border_count_by_their_share(dtype):
    x = torch.arange(4.0).view(1, 1, 1, 4).to(dtype)
    with valid_areas(torch.tensor([[0.0, 1.0, 0.375, 1.0]])):  # from the middle of the second of four columns
        _, mean = global_mean(x)
    torch.testing.assert_close(mean, torch.tensor([[(0.5 * 1 + 2 + 3) / 2.5]]))
    with torch.autocast('cpu', torch.bfloat16), valid_areas(torch.tensor([[0.0, 1.0, 0.375, 1.0]])):
        assert torch.equal(global_mean(x)[1], mean)


def sample(shape, padding=None) -> DetDataSample:
    metainfo = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape)
    return DetDataSample(metainfo=metainfo | ({} if padding is None else dict(pad_param=np.array(padding))))


def test_areas_come_from_the_padding():
    inputs = torch.zeros(2, 3, 100, 200)
    assert image_areas(None, inputs) is None
    assert image_areas([sample((100, 200))] * 2, inputs) is None
    unpadded = sample((100, 200))
    unpadded.set_metainfo(dict(pad_param=None))
    assert image_areas([unpadded], inputs) is None
    areas = image_areas([sample((100, 200), (10, 20, 0, 50)), sample((50, 200), (0, 0, 0, 0))], inputs)
    torch.testing.assert_close(areas, torch.tensor([[0.1, 0.8, 0.0, 0.75], [0.0, 0.5, 0.0, 1.0]]))


def test_routing_does_not_see_the_padding():
    """Of the packaged detector, for images that a letterbox makes square: moved by a tenth of what images differ."""
    _, path = packaged('yolo11n_dynconv_digits')
    config = load_config('yolo11n_dynconv_digits')
    config.model.pool_valid_area = True
    model = build_model(config)
    model.load_state_dict({k: v.float() for k, v in read_tensors(path)[0].items()})
    material, rng = _split_materials(0)['val'], np.random.default_rng(0)
    images = [torch.from_numpy(make_image(material, rng)[0][64:256]) for _ in range(12)]
    batch = torch.stack(images).permute(0, 3, 1, 2).flip(1).float() / 255  # (12, 3, 192, 320)
    square = torch.nn.functional.pad(batch, (0, 0, 64, 64), value=114 / 255)

    def routing(inputs, padding):
        samples = [sample(tuple(inputs.shape[2:]), padding)] * len(inputs)
        with record_routing(model) as seen, torch.no_grad():
            model(inputs, samples, mode='predict')
        return {layer: weights[0] for layer, weights in seen.items()}

    bare, valid = routing(batch, (0, 0, 0, 0)), routing(square, (64, 64, 0, 0))
    model.pool_valid_area = False
    whole = routing(square, (64, 64, 0, 0))
    for layer, weights in bare.items():
        spread, moved, before = weights.std(0).mean(), *((r[layer] - weights).abs().mean() for r in (valid, whole))
        assert moved < 0.25 * before, layer
        assert moved < (0.1 if 'neck.downsample_layers.1' not in layer else 0.2) * spread, layer
