"""The original YOLO11 of the Ultralytics package, with the published dynamic convolution put into it.

The package has no DynamicConv; those who train with it patch a copy. Here its layers are exchanged after it has built
its model, by modules with the parameters and names of the published variants.
"""

import json
import os
import tempfile
from pathlib import Path

# Before the package is imported: nothing is downloaded, installed or reported, and settings go to a folder of our own.
os.environ.update(YOLO_OFFLINE='1', YOLO_AUTOINSTALL='false', YOLO_VERBOSE='false')
os.environ.setdefault('YOLO_CONFIG_DIR', tempfile.mkdtemp(prefix='original-settings-'))

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import ultralytics.nn.modules as original_modules
from timm.layers import CondConv2d
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.models.yolo.obb import OBBTrainer, OBBValidator
from ultralytics.models.yolo.pose import PoseTrainer, PoseValidator
from ultralytics.models.yolo.segment import SegmentationTrainer, SegmentationValidator
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, OBBModel, PoseModel, SegmentationModel
from ultralytics.utils import ASSETS, SETTINGS

SETTINGS.update({name: False for name, value in SETTINGS.items() if value is True})  # no loggers, no reports

PHOTOS = sorted(ASSETS.glob('*.jpg'))
SCALES = 'nsmlx'
VARIANTS = {'static': (False, False), 'dynconv': (True, False), 'c3k2_dynconv': (False, True)}
MODELS = {  # and the suffix of their names
    'detect': (DetectionModel, ''),
    'segment': (SegmentationModel, '-seg'),
    'pose': (PoseModel, '-pose'),
    'obb': (OBBModel, '-obb'),
    'classify': (ClassificationModel, '-cls'),
}
DOWN_SAMPLING = (1, 3, 5, 7, 17, 20)


class DynamicConv(nn.Module):
    """The published layer: a linear router, and timm's CondConv2d with the batch folded into groups."""

    def __init__(self, conv: nn.Conv2d, num_experts: int = 4) -> None:
        super().__init__()
        self.routing = nn.Linear(conv.in_channels, num_experts)
        self.cond_conv = CondConv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, num_experts=num_experts
        )

    def forward(self, x):
        return self.cond_conv(x, torch.sigmoid(self.routing(F.adaptive_avg_pool2d(x, 1).flatten(1))))


# Checkpoints hold the class by name; in a patched copy it is one of the package's own.
DynamicConv.__module__ = 'ultralytics.nn.modules.block'
original_modules.block.DynamicConv = DynamicConv


def make_dynamic(model: DetectionModel, down: bool, blocks: bool, num_experts: int = 4) -> DetectionModel:
    """Exchange the strided convolutions, the second ones of all bottlenecks, or both."""
    if down:
        for index in DOWN_SAMPLING if len(model.model) > 11 else DOWN_SAMPLING[:4]:  # a classifier has no neck
            static = model.model[index]
            model.model[index] = DynamicConv(static.conv, num_experts)
            for name in ('i', 'f', 'type', 'np'):
                setattr(model.model[index], name, getattr(static, name))
    if blocks:
        for module in model.modules():
            if type(module).__name__ == 'Bottleneck':
                module.cv2 = DynamicConv(module.cv2.conv, num_experts)
    return model


def build(
    scale: str = 'n', variant: str = 'static', classes: int = 80, task: str = 'detect', **kwargs
) -> DetectionModel:
    """A model of the original, as it is initialised there."""
    kind, suffix = MODELS[task]
    model = kind(f'yolo11{scale}{suffix}.yaml', nc=classes, verbose=False)
    return make_dynamic(model, *VARIANTS[variant], **kwargs)


@torch.no_grad()
def randomise(model: DetectionModel, seed: int = 0) -> DetectionModel:
    """Random weights, and batch norm statistics around those of a photograph, so that scores are spread."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
            module.weight.copy_(uniform(module.weight, -2, 2) / module.weight[0].numel() ** 0.5)
        elif isinstance(module, CondConv2d):  # (experts, all of a kernel); about half of each expert is taken
            module.weight.copy_(uniform(module.weight, -1, 1) / (module.weight[0].numel() / module.out_channels) ** 0.5)
    for norm in norms:
        norm.weight.copy_(uniform(norm.weight, 0.6, 1.4))
        norm.bias.copy_(uniform(norm.bias, -0.3, 0.3))
        norm.momentum = 1.0
    head = model.model[-1]
    for boxes, classes in zip(getattr(head, 'cv2', ()), getattr(head, 'cv3', ()), strict=True):
        boxes[-1].bias.copy_(uniform(boxes[-1].bias, -1, 1))
        classes[-1].bias.copy_(uniform(classes[-1].bias, -4, -2))
        classes[-1].weight.div_(4)  # no score so near one that two are the same
    photo = cv2.resize(cv2.imread(str(PHOTOS[0])), (480, 640))[..., ::-1].copy()
    model.train()(torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255)
    for norm in norms:
        norm.momentum = momentum
        norm.running_mean.add_(uniform(norm.bias, -0.3, 0.3) * norm.running_var.sqrt())
        norm.running_var.mul_(uniform(norm.bias, 0.7, 1.4))
    return model.eval()


def yolo_dataset(root: Path, splits: dict[str, tuple[Path, Path]], task: str = 'detect') -> Path:
    """Write a COCO-format set (annotation file and image folder a split) as the original's; returns its YAML file."""
    keypoints = 0
    for split, (file, images) in splits.items():
        content = json.loads(file.read_text())
        order = {c['id']: i for i, c in enumerate(content['categories'])}
        (root / 'images' / split).mkdir(parents=True)
        (root / 'labels' / split).mkdir(parents=True)
        lines: dict[int, list[str]] = {image['id']: [] for image in content['images']}
        sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
        for a in content['annotations']:
            (x, y, w, h), (width, height) = a['bbox'], sizes[a['image_id']]
            numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            if task == 'pose':
                points = np.reshape(a['keypoints'], (-1, 3)) / (width, height, 1)
                keypoints = len(points)
                numbers += points.flatten().tolist()
            if task in ('segment', 'obb'):
                (part,) = a['segmentation']
                numbers = (np.reshape(part, (-1, 2)) / (width, height)).flatten().tolist()
            lines[a['image_id']].append(' '.join(map(repr, (order[a['category_id']], *numbers))))
        for image in content['images']:
            target = root / 'images' / split / Path(image['file_name']).name
            target.symlink_to((images / image['file_name']).resolve())
            (root / 'labels' / split / target.name).with_suffix('.txt').write_text('\n'.join(lines[image['id']]))
    names = json.dumps([c['name'] for c in content['categories']])
    yaml = root / 'data.yaml'
    yaml.write_text(f'path: {root}\nnames: {names}\n' + ''.join(f'{split}: images/{split}\n' for split in splits))
    if task == 'pose':
        yaml.write_text(f'{yaml.read_text()}kpt_shape: [{keypoints}, 3]\n')
    return yaml


def random_affine(rng) -> np.ndarray:
    """A matrix (3, 3) that turns, scales and moves."""
    angle, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.5, 2)
    return np.array([
        [scale * np.cos(angle), -np.sin(angle), rng.uniform(-80, 80)],
        [np.sin(angle), scale * np.cos(angle), rng.uniform(-80, 80)],
        [0, 0, 1],
    ])  # fmt: skip


def photo_crops(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A batch of pieces of photographs, as the network is given them."""
    generator = torch.Generator().manual_seed(seed)
    photos = [torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1) / 255 for path in PHOTOS]
    crops = []
    for i in range(batch):
        photo = photos[i % len(photos)]
        room = (photo.shape[1] - height, photo.shape[2] - width)
        y, x = (int(torch.randint(n, (1,), generator=generator)) for n in room)
        crops.append(photo[:, y : y + height, x : x + width])
    return torch.stack(crops)


class OfVariant:
    """What a trainer of the original adds to train a variant of its model, from weights if there are any."""

    variant = 'static'
    start: torch.nn.Module | None = None  # its tensors are taken where their shapes agree, as the package does

    def get_model(self, cfg=None, weights=None, verbose=True):
        return make_dynamic(super().get_model(cfg, weights or self.start, verbose), *VARIANTS[self.variant])


class Trainer(OfVariant, DetectionTrainer):
    """The trainer of detection."""


TRAINERS = {'detect': DetectionTrainer, 'segment': SegmentationTrainer, 'pose': PoseTrainer, 'obb': OBBTrainer}
VALIDATORS = {
    'detect': DetectionValidator,
    'segment': SegmentationValidator,
    'pose': PoseValidator,
    'obb': OBBValidator,
}


def train(
    data: Path, out: Path, variant: str = 'static', trainer: type = OfVariant, task: str = 'detect', **overrides
) -> DetectionTrainer:
    """Train the original with its published recipe for SGD; the checkpoints are in ``out/weights``.

    ``trainer`` is a class of its own, or one that goes before the trainer of the task.
    """
    settings = dict(
        model=f'yolo11n{MODELS[task][1]}.yaml', data=str(data), project=str(out.parent), name=out.name, exist_ok=True,
        device='cpu', optimizer='SGD', pretrained=False, amp=False, workers=0, plots=False, verbose=False, seed=0,
    )  # fmt: skip
    subclass = type('Trainer', (trainer, TRAINERS[task]), {'variant': variant})
    run = subclass(overrides=settings | overrides)
    run.train()
    return run


def validate(checkpoint: Path, data: Path, out: Path, task: str = 'detect', **settings) -> dict[str, float]:
    """AP that the original reports for a checkpoint, and its predictions in ``out/predictions.json``."""
    arguments = dict(model=str(checkpoint), data=str(data), project=str(out.parent), name=out.name, exist_ok=True)
    validator = VALIDATORS[task](
        args=arguments | dict(device='cpu', workers=0, plots=False, verbose=False, save_json=True) | settings
    )
    return validator()
