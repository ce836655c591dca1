"""Classification: the converted model computes what the original computes, and learns the same from a batch."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from PIL import Image

import original

pytest.importorskip('mmpretrain', reason='needs requirements/classify.txt')
pytestmark = pytest.mark.parity

from mmpretrain.structures import DataSample

from mmdyn.convert import convert_to_original
from mmdyn.convert.key_table import original_names
from mmdyn.running import load_config

CASES = [
    pytest.param(scale, variant, marks=[] if scale in 'nl' else pytest.mark.long)
    for scale in original.SCALES
    for variant in original.VARIANTS
]
CLASSES = 7


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-6)).item()


@pytest.mark.parametrize(('scale', 'variant'), CASES)
def test_outputs_and_the_way_back(pair, scale, variant, tmp_path):
    theirs, ours, *_, converted = pair(scale, variant, CLASSES, task='classify')
    for batch, height, width in ((1, 32, 32), (3, 96, 160), (2, 224, 224)):
        images = original.photo_crops(batch, height, width)
        with torch.no_grad():
            probabilities, logits = theirs(images)
            found = ours(images, mode='tensor')
            [*samples] = ours.predict(images)
        assert (found - logits).abs().max() < 1e-4 * logits.abs().max()
        scores = torch.stack([sample.pred_score for sample in samples])
        torch.testing.assert_close(scores, probabilities, atol=1e-5, rtol=0)
    convert_to_original(converted, tmp_path / 'back.pt')
    back = torch.load(tmp_path / 'back.pt', weights_only=True)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize('variant', original.VARIANTS)
def test_losses_and_gradients(pair, variant):
    theirs, ours, *_ = pair('n', variant, CLASSES, task='classify')
    theirs.train(), ours.train()
    for count in (2, 5):
        images, labels = torch.rand(count, 3, 96, 96), torch.randint(CLASSES, (count,))
        samples = [DataSample().set_gt_label(label) for label in labels]
        found = ours(images, samples, mode='loss')['loss']
        expected = theirs.loss(dict(img=images, cls=labels))[0]
        assert relative(found.detach(), expected.detach()) < 1e-5
        assert relative(expected.detach(), F.cross_entropy(theirs(images), labels).detach()) < 1e-5
        for model, loss in ((ours, found), (theirs, expected)):
            model.zero_grad()
            loss.backward()
        names, by_name = original_names(ours.state_dict()), dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            there = by_name[names[name]].grad
            assert relative(parameter.grad, there) < 1e-3 or there.norm() < 1e-4, name


def photograph_pixels(height: int, width: int) -> np.ndarray:
    """A photograph as an array, BGR uint8."""
    [image] = original.photo_crops(1, height, width)
    return np.ascontiguousarray((image * 255).byte().permute(1, 2, 0).numpy())


def steps_of(loader) -> Compose:
    """The pipeline after the image is loaded, for an array."""
    return Compose([dict(type='mmdet.LoadImageFromNDArray'), *loader.dataset.pipeline[1:]])


def test_training_and_test_images():
    """Random steps draw the same numbers in the same order, so that images of a seed are equal in every pixel."""
    from ultralytics.data.augment import classify_augmentations, classify_transforms

    cfg = load_config('classify/yolo11n_imagenet')
    with DefaultScope.overwrite_default_scope('mmyolo'):
        training, test = steps_of(cfg.train_dataloader), steps_of(cfg.test_dataloader)
    theirs = classify_augmentations(size=224, scale=(0.5, 1.0), hflip=0.5, erasing=0.4, auto_augment='randaugment')
    image = photograph_pixels(375, 500)
    picture = Image.fromarray(image[..., ::-1])
    for seed in range(20):
        results = []
        for make in (lambda: training(dict(img=image))['inputs'] / 255, lambda: theirs(picture)):
            torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
            results.append(make())
        assert torch.equal(*results), seed
    for size in ((375, 500), (500, 375), (224, 224), (90, 300)):
        image = photograph_pixels(*size)
        expected = classify_transforms(224)(Image.fromarray(image[..., ::-1]))
        assert torch.equal(test(dict(img=image))['inputs'] / 255, expected), size
