"""What is packed equals what mmdet packs, flipped images included."""

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs

from mmdyn.datasets import PackInputs

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    'image',
    [
        *(IMAGE, IMAGE[:, ::-1], IMAGE[::-1], IMAGE[::-1, ::-1], IMAGE[5:20, 7:30], IMAGE[..., ::-1]),
        *(IMAGE[..., 0], IMAGE[..., :1], IMAGE[:, ::-1, :1], IMAGE[..., [0, 1, 2, 0]], IMAGE.astype(np.float32)),
    ],
)
def test_equals_mmdets(image):
    results = dict(img=image, img_id=3, gt_bboxes_labels=np.arange(4), gt_ignore_flags=np.array([0, 1, 0, 0], bool))
    ours, theirs = (kind(meta_keys=('img_id',))(dict(results)) for kind in (PackInputs, PackDetInputs))
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert ours['inputs'].is_contiguous()
    assert ours['data_samples'].img_id == 3
    assert torch.equal(ours['data_samples'].gt_instances.labels, theirs['data_samples'].gt_instances.labels)
