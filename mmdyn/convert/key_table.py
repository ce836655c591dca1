"""Names of YOLO11's tensors: those of this project, and those of the Ultralytics package.

One table maps this project's names to the original's; its inverse maps them back. The names are facts of the file
format of https://github.com/ultralytics/ultralytics.
"""

import re
from collections.abc import Iterable

from mmdyn.models.numbering import NUMBERED

# Index of each part of the model in the original's list of layers. The first match counts.
LAYERS = tuple((rf'^{re.escape(name)}\.', f'model.{number}.') for number, name in NUMBERED.items())
# The same for the head, by task.
BOXES = (
    (r'^bbox_head\.head_module\.reg_preds\.', 'model.23.cv2.'),
    (r'^bbox_head\.head_module\.cls_preds\.(\d)\.([01])\.', r'model.23.cv3.\1.0.\2.'),
    (r'^bbox_head\.head_module\.cls_preds\.(\d)\.2\.', r'model.23.cv3.\1.1.0.'),
    (r'^bbox_head\.head_module\.cls_preds\.(\d)\.3\.', r'model.23.cv3.\1.1.1.'),
    (r'^bbox_head\.head_module\.cls_preds\.(\d)\.4\.', r'model.23.cv3.\1.2.'),
)
HEADS = {
    'detect': BOXES,
    'segment': (
        *BOXES,
        (r'^bbox_head\.head_module\.mask_preds\.', 'model.23.cv4.'),
        (r'^bbox_head\.head_module\.prototypes\.conv(\d)\.', r'model.23.proto.cv\1.'),
        (r'^bbox_head\.head_module\.prototypes\.upsample\.', 'model.23.proto.upsample.'),
    ),
    'pose': (*BOXES, (r'^bbox_head\.head_module\.keypoint_preds\.', 'model.23.cv4.')),
    'obb': (*BOXES, (r'^bbox_head\.head_module\.angle_preds\.', 'model.23.cv4.')),
    'classify': (
        (r'^backbone\.stage4\.3\.', 'model.9.'),  # there is no SPPF before it
        (r'^head\.conv\.', 'model.10.conv.'),
        (r'^head\.fc\.', 'model.10.linear.'),
    ),
}
# A tensor that only the head of this task has: its name here.
MARKS = {
    'segment': 'bbox_head.head_module.prototypes.upsample.weight',
    'pose': 'bbox_head.head_module.keypoint_preds.0.2.weight',
    'obb': 'bbox_head.head_module.angle_preds.0.2.weight',
    'classify': 'head.fc.weight',
}
# Names inside a part. All matches apply, in this order: the third convolution of a C3k before that of a C3k2.
INSIDE = (
    (r'\.blocks\.(\d+)\.final_conv\.', r'.blocks.\1.cv3.'),
    (r'\.(main_conv|conv1)\.', '.cv1.'),
    (r'\.(short_conv|final_conv|conv2)\.', '.cv2.'),
    (r'\.blocks\.', '.m.'),
    (r'\.attention\.', '.attn.'),
    (r'\.position\.', '.pe.'),
    (r'\.router\.', '.routing.'),
)
# The original stores the fixed projection of its distances as weights; here the state dict does not contain it.
PROJECTION = 'model.23.dfl.conv.weight'


def original_names(names: Iterable[str]) -> dict[str, str]:
    """Name in the original of every tensor of a YOLO11 of this project.

    Args:
        names: Keys of the whole state dict: other keys of a layer show whether it is a DynamicConv, and those of the
            head its task.

    Returns:
        This project's name -> the original's.

    Raises:
        KeyError: A name does not belong to a YOLO11; the error contains it.
    """
    names = list(names)
    dynamic = {name.removesuffix('router.weight') for name in names if name.endswith('.router.weight')}
    task = next((task for task, mark in MARKS.items() if mark in names), 'detect')
    layers = (*HEADS[task], *LAYERS)
    return {name: _original_name(name, dynamic, layers) for name in names}


def _original_name(name: str, dynamic: set[str], layers: tuple[tuple[str, str], ...]) -> str:
    owner, _, parameter = name.rpartition('.')
    own_name = f'{owner}.cond_conv.{parameter}' if f'{owner}.' in dynamic else name
    for pattern, layer in layers:
        original, matched = re.subn(pattern, layer, own_name)
        if matched:
            break
    else:
        raise KeyError(name)
    for pattern, part in INSIDE:
        original = re.sub(pattern, part, original)
    return original
