"""Detects scale, classes and variant of a YOLO11 state dict of the Ultralytics package, and its config."""

from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmdyn.classify.task import need_mmpretrain
from mmdyn.errors import UserError
from mmdyn.models.build import build_model
from mmdyn.running.config_file import CONFIGS
from mmdyn.tasks import TASKS

STEM = 'model.0.conv.weight'
ROUTING = 'routing.weight'
MAX_CLASSES, MAX_EXPERTS = 100_000, 256  # limits for numbers from an untrusted file
# (channels of the stem, whether blocks are repeated) -> scale
SCALES = {(16, False): 'n', (32, False): 's', (64, False): 'm', (64, True): 'l', (96, True): 'x'}
# Part of the model and its option -> the dynamic layer, and the first of these layers in the original.
DYNAMIC_PARTS = {
    ('backbone', 'downsample_cfg'): ('DynamicConv', 'model.1.'),
    ('neck', 'downsample_cfg'): ('DynamicConv', 'model.17.'),
    ('backbone', 'block_cfg'): ('C3k2_DynamicConv', 'model.2.'),
    ('neck', 'block_cfg'): ('C3k2_DynamicConv', 'model.13.'),
}
PROTOTYPES = 'model.23.proto.upsample.weight'
BRANCH = 'model.23.cv4.0.2.weight'  # that a task has beside boxes and classes: keypoints, or one angle
CLASS_LOGITS = 'model.23.cv3.0.2.weight'
LINEAR = 'model.10.linear.weight'  # of a classifier, for its class logits
# Tensors that only a YOLO11 has, and those that only one for classification has.
YOLO11 = {STEM, 'model.10.m.0.attn.qkv.conv.weight', 'model.23.cv2.0.2.bias', CLASS_LOGITS}
CLASSIFIER = {STEM, 'model.9.m.0.attn.qkv.conv.weight', 'model.10.conv.conv.weight', LINEAR}


class Variant(NamedTuple):
    """A YOLO11 and its config."""

    scale: str
    classes: int
    config: str  # name of the config file
    options: dict[str, object]  # values to override in it
    task: str = 'detect'

    def load_config(self) -> Config:
        """Load the config with its options."""
        cfg = Config.fromfile(CONFIGS / self.config)
        cfg.merge_from_dict(self.options)
        return cfg

    def command(self, tool: str, *arguments: str | Path) -> str:
        """A command line with this config."""
        options = [f'{k}={v}' for k, v in self.options.items()]
        return ' '.join(
            [
                f'python {tool} configs/{self.config}',
                *map(str, arguments),
                *(['--cfg-options', *options] * bool(options)),
            ]
        )

    def expected(self) -> dict[str, Tensor]:
        """State dict of the config's model, on the meta device."""
        with torch.device('meta'), DefaultScope.overwrite_default_scope('mmyolo'):
            return build_model(self.load_config()).state_dict()


def find_variant(
    state_dict: dict[str, Tensor], head: str | None, path: Path, keypoints: tuple[int, int] | None = None
) -> Variant:
    """Identify a state dict of the original.

    Args:
        state_dict: Tensors by the original's names.
        head: Class name of the last layer, if known.
        path: File name for messages.
        keypoints: Of a pose model, how many keypoints, and how many numbers of each, if known.

    Raises:
        UserError: It is not a YOLO11 of a known task (the message names its kind), or its scale or its keypoints are
            unknown.
    """
    other = _other_model(state_dict, head)
    if other:
        titles = ', '.join(sorted(task.title for task in TASKS.values()))
        raise UserError(f'{path} is {other}. Only a YOLO11 for {titles}, of scale n, s, m, l or x, can be converted')
    if 'model.0.bn.weight' not in state_dict:
        raise UserError(
            f'{path} has its batch norms folded into the convolutions. Convert the checkpoint before folding'
        )
    stem = tuple(state_dict[STEM].shape)
    scale = SCALES.get((stem[0] if stem else 0, 'model.2.m.1.cv1.conv.weight' in state_dict))
    if scale is None or stem[1:] != (3, 3, 3):
        raise UserError(f'{path} is not a YOLO11 of scale n, s, m, l or x: its first kernels are {stem}')
    classes = state_dict[LINEAR if LINEAR in state_dict else CLASS_LOGITS].shape[:1].numel()
    experts = {part: _experts(state_dict, layer) for part, (_, layer) in DYNAMIC_PARTS.items()}
    if not 1 <= classes <= MAX_CLASSES or max(experts.values()) > MAX_EXPERTS:
        raise UserError(
            f'{path} has {classes} classes and up to {max(experts.values())} experts; '
            f'at most {MAX_CLASSES} and {MAX_EXPERTS} can be converted'
        )
    down, blocks = ('backbone', 'downsample_cfg'), ('backbone', 'block_cfg')
    kind = '_dynconv' if experts[down] else '_c3k2_dynconv' if experts[blocks] else ''
    by_head = {task.original_head: name for name, task in TASKS.items()}
    task = by_head[head] if head else _task(state_dict)
    if task == 'classify':
        need_mmpretrain()
    config = f'{task}/yolo11{scale}{kind}_{TASKS[task].data}.py'.removeprefix('detect/')
    options = _options(config, classes, experts)
    if task == 'pose' and BRANCH in state_dict:
        shape = _keypoint_shape(state_dict[BRANCH].shape[:1].numel(), keypoints, path)
        options |= {'model.bbox_head.head_module.keypoint_shape': shape} if shape != (17, 3) else {}
    return Variant(scale, classes, config, options, task)


def _task(state_dict: dict[str, Tensor]) -> str:
    if LINEAR in state_dict:
        return 'classify'
    if PROTOTYPES in state_dict or BRANCH not in state_dict:
        return 'segment' if PROTOTYPES in state_dict else 'detect'
    return 'obb' if state_dict[BRANCH].shape[:1].numel() == 1 else 'pose'


def _keypoint_shape(outputs: int, stated: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """Keypoints and numbers of each, of the outputs of a pose model: what is stated, or COCO's if they fit.

    Raises:
        UserError: They do not fit what is stated, or nothing is and they may be several.
    """
    shape = stated or ((17, 3) if outputs == 51 else None)
    if shape is None:
        raise UserError(
            f'{path} has {outputs} numbers of keypoints and does not state its kpt_shape: give it, for example '
            f'--keypoints {outputs // 3} 3'
        )
    if shape[0] * shape[1] != outputs or shape[1] not in (2, 3):
        raise UserError(f'{path} has {outputs} numbers of keypoints, which are not {shape[0]} x {shape[1]}')
    return shape


def _other_model(state_dict: dict[str, Tensor], head: str | None) -> str | None:
    """The kind of a model that is not a YOLO11 of a task that is known here; None if it is one."""
    if (head or '').endswith('26') or any('.one2one_' in key for key in state_dict):
        return 'a YOLO26, or another model without NMS'
    if head is not None and head not in {task.original_head for task in TASKS.values()}:
        return f'a model that ends in {head}'
    if 'model.22.cv2.0.0.conv.weight' in state_dict:  # its head is one layer earlier
        return 'a YOLOv8 or YOLOv9'
    if state_dict.keys() >= YOLO11 or state_dict.keys() >= CLASSIFIER:
        return None
    return 'another classifier' if head == 'Classify' else 'another YOLO'


def _experts(state_dict: dict[str, Tensor], layer: str) -> int:
    """Number of experts of the first DynamicConv in a layer; 0 if the layer is static."""
    return next((v.shape[:1].numel() for k, v in state_dict.items() if k.startswith(layer) and k.endswith(ROUTING)), 0)


def _options(config: str, classes: int, experts: dict[tuple[str, str], int]) -> dict[str, object]:
    """Values that differ from those of the config."""
    model = Config.fromfile(CONFIGS / config).model
    options: dict[str, object] = {}
    key = 'model.head' if 'head' in model else 'model.bbox_head.head_module'
    head = model.head if 'head' in model else model.bbox_head.head_module
    if head.num_classes != classes:
        options[f'{key}.num_classes'] = classes
    for (part, option), count in experts.items():
        if part not in model:
            continue
        dynamic, _ = DYNAMIC_PARTS[part, option]
        current = model[part][option]
        if count and current.type != dynamic:
            options[f'model.{part}.{option}.type'] = dynamic
        if count and current.get('num_experts', 4) != count:
            options[f'model.{part}.{option}.num_experts'] = count
    return options
