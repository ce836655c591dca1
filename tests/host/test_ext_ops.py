"""The stand-in of mmcv._ext against plain references written from the papers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv import ops


def random_boxes(n: int, size: float = 40) -> torch.Tensor:
    corner = torch.rand(n, 2) * size
    return torch.cat((corner, corner + torch.rand(n, 2) * size / 2 + 1), dim=1)


def iou(a, b, offset: int) -> float:
    w = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])) + offset)
    h = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])) + offset)
    area = [float((c[2] - c[0] + offset) * (c[3] - c[1] + offset)) for c in (a, b)]
    return w * h / (sum(area) - w * h)


def plain_nms(boxes, scores, threshold, offset, score_threshold, max_num):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        if score_threshold > 0 and scores[i] <= score_threshold:
            continue
        if all(iou(boxes[i], boxes[k], offset) <= threshold for k in kept):
            kept.append(i)
    return kept[:max_num] if max_num > 0 else kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('score_threshold', [0.0, 0.4])
@pytest.mark.parametrize('max_num', [-1, 7])
def test_nms(offset, score_threshold, max_num):
    boxes, scores = random_boxes(80), torch.rand(80)
    dets, kept = ops.nms(boxes, scores, 0.3, offset, score_threshold, max_num)
    assert kept.tolist() == plain_nms(boxes, scores, 0.3, offset, score_threshold, max_num)
    torch.testing.assert_close(dets, torch.cat((boxes[kept], scores[kept, None]), dim=1))


def test_nms_offset_decides():
    # IoU is 8 / 24 without the last pixel and 15 / 33 with it.
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4]])
    scores = torch.tensor([0.9, 0.8])
    assert len(ops.nms(boxes, scores, 0.4, offset=0)[1]) == 2
    assert len(ops.nms(boxes, scores, 0.4, offset=1)[1]) == 1


def test_nms_takes_nothing_and_numpy():
    dets, kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)
    boxes = random_boxes(10)
    _, kept = ops.nms(boxes.numpy(), np.linspace(1, 0.1, 10, dtype=np.float32), 0.5)
    assert isinstance(kept, np.ndarray)


def plain_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    scores, left, kept = scores.clone().double(), list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: float(scores[i]))
        kept.append((best, float(scores[best])))
        left.remove(best)
        for i in left:
            overlap = iou(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                scores[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                scores[i] *= 0 if method == 'naive' else 1 - overlap
        left = [i for i in left if scores[i] >= min_score]
    return kept


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
def test_soft_nms(method, offset):
    boxes, scores = random_boxes(40), torch.rand(40)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    expected = plain_soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([s for _, s in expected]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dets[:, :4], boxes[kept])


def test_soft_nms_keeps_the_best_box_whatever_its_score():
    dets, kept = ops.soft_nms(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([1e-6]), min_score=0.5)
    assert kept.tolist() == [0]
    assert dets.shape == (1, 5)


def bilinear(plane, y, x):
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return plane.new_zeros(())
    y, x = max(y, 0), max(x, 0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    y, x = min(y, y0 + 1) if y0 < height - 1 else y0, min(x, x0 + 1) if x0 < width - 1 else x0
    b, a = y - y0, x - x0
    return (plane[y0, x0] * (1 - a) + plane[y0, x1] * a) * (1 - b) + (plane[y1, x0] * (1 - a) + plane[y1, x1] * a) * b


def plain_roi_align(features, roi, out, scale, samples, aligned):
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (float(v) * scale - shift for v in roi[1:])
    w, h = x2 - x1, y2 - y1
    if not aligned:
        w, h = max(w, 1), max(h, 1)
    result = features.new_zeros(features.shape[1], out, out)
    for c in range(features.shape[1]):
        for i in range(out):
            for j in range(out):
                total = 0
                for sy in range(samples):
                    for sx in range(samples):
                        y = y1 + (i + (sy + 0.5) / samples) * h / out
                        x = x1 + (j + (sx + 0.5) / samples) * w / out
                        total = total + bilinear(features[int(roi[0]), c], y, x)
                result[c, i, j] = total / samples**2
    return result


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align(aligned):
    features = torch.randn(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 1.0, 2, 11, 9], [1, 0, 0, 15, 14], [1, 5, 5, 6, 7]], dtype=torch.float64)
    y = ops.roi_align(features, rois, 2, 0.5, 2, 'avg', aligned)
    expected = torch.stack([plain_roi_align(features, roi, 2, 0.5, 2, aligned) for roi in rois])
    torch.testing.assert_close(y, expected)
    assert torch.autograd.gradcheck(lambda f: ops.roi_align(f, rois, 2, 0.5, 2, 'avg', aligned), features)


def plain_roi_pool(features, roi, out, scale):
    x1, y1, x2, y2 = (round(float(v) * scale) for v in roi[1:])
    w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    result = features.new_zeros(features.shape[1], out, out)
    for i in range(out):
        for j in range(out):
            top, bottom = (min(max(v + y1, 0), features.shape[2]) for v in (i * h // out, -(-(i + 1) * h // out)))
            left, right = (min(max(v + x1, 0), features.shape[3]) for v in (j * w // out, -(-(j + 1) * w // out)))
            if bottom > top and right > left:
                result[:, i, j] = features[int(roi[0]), :, top:bottom, left:right].amax((1, 2))
    return result


def test_roi_pool():
    features = torch.randn(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 2.0, 2, 12, 10], [1, 0, 0, 14, 14], [0, 40, 40, 50, 50]], dtype=torch.float64)
    y = ops.roi_pool(features, rois, 2, 0.5)
    expected = torch.stack([plain_roi_pool(features, roi, 2, 0.5) for roi in rois])
    torch.testing.assert_close(y, expected)
    assert (y[2] == 0).all()  # outside of the image
    cotangent = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad(t, features, cotangent)[0] for t in (y, expected))
    torch.testing.assert_close(ours, theirs)


def plain_deform_conv(x, offset, mask, weight, stride, padding, dilation, groups, deform_groups):
    batch, channels, _, _ = x.shape
    out_channels, per_group, kh, kw = weight.shape
    _, _, out_h, out_w = offset.shape
    sampled = x.new_zeros(batch, channels, kh * kw, out_h, out_w)
    for b in range(batch):
        for c in range(channels):
            dg = c // (channels // deform_groups)
            for n in range(kh * kw):
                for i in range(out_h):
                    for j in range(out_w):
                        at = 2 * (dg * kh * kw + n)
                        y = i * stride - padding + n // kw * dilation + float(offset[b, at, i, j])
                        xx = j * stride - padding + n % kw * dilation + float(offset[b, at + 1, i, j])
                        value = zero_padded(x[b, c], y, xx)
                        sampled[b, c, n, i, j] = value * (1 if mask is None else mask[b, dg * kh * kw + n, i, j])
    grouped = sampled.view(batch, groups, per_group, kh * kw, out_h, out_w)
    kernels = weight.view(groups, out_channels // groups, per_group, kh * kw)
    return torch.einsum('bgcnhw,gocn->bgohw', grouped, kernels).flatten(1, 2)


def zero_padded(plane, y, x):
    total = plane.new_zeros(())
    for yy in (math.floor(y), math.floor(y) + 1):
        for xx in (math.floor(x), math.floor(x) + 1):
            if 0 <= yy < plane.shape[0] and 0 <= xx < plane.shape[1]:
                total = total + plane[yy, xx] * (1 - abs(y - yy)) * (1 - abs(x - xx))
    return total


DEFORM = [
    pytest.param(1, 1, 1, 1, 1, id='plain'),
    pytest.param(2, 1, 1, 1, 1, id='stride2'),
    pytest.param(1, 2, 2, 1, 1, id='dilation2'),
    pytest.param(1, 1, 1, 2, 2, id='groups2'),
]


@pytest.mark.parametrize(('stride', 'padding', 'dilation', 'groups', 'deform_groups'), DEFORM)
def test_deform_conv(stride, padding, dilation, groups, deform_groups):
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, 3, 3, dtype=torch.float64)
    shape = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    offset = torch.randn(2, 18 * deform_groups, *shape, dtype=torch.float64)
    args = (stride, padding, dilation, groups, deform_groups)
    expected = plain_deform_conv(x, offset, None, weight, *args)
    torch.testing.assert_close(ops.deform_conv2d(x, offset, weight, *args), expected)
    leaves = [t.requires_grad_() for t in (x, offset, weight)]
    assert torch.autograd.gradcheck(lambda *t: ops.deform_conv2d(*t, *args), leaves, atol=1e-4)


@pytest.mark.parametrize(('stride', 'padding', 'dilation', 'groups', 'deform_groups'), DEFORM)
@pytest.mark.parametrize('bias', [False, True])
def test_modulated_deform_conv(stride, padding, dilation, groups, deform_groups, bias):
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, 3, 3, dtype=torch.float64)
    b = torch.randn(6, dtype=torch.float64) if bias else None
    shape = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    offset = torch.randn(2, 18 * deform_groups, *shape, dtype=torch.float64)
    mask = torch.rand(2, 9 * deform_groups, *shape, dtype=torch.float64)
    args = (stride, padding, dilation, groups, deform_groups)
    expected = plain_deform_conv(x, offset, mask, weight, *args)
    expected = expected if b is None else expected + b[:, None, None]
    torch.testing.assert_close(ops.modulated_deform_conv2d(x, offset, mask, weight, b, *args), expected)
    leaves = [t.requires_grad_() for t in (x, offset, mask, weight)]
    assert torch.autograd.gradcheck(lambda *t: ops.modulated_deform_conv2d(*t, b, *args), leaves, atol=1e-4)


@pytest.mark.parametrize('class_weights', [False, True])
def test_sigmoid_focal_loss(class_weights):
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 3, 2, 1, 0, 2] if class_weights else [0, 3, 4, 1, 4, 2])  # 4 is background
    weight = torch.rand(4, dtype=torch.float64) if class_weights else None
    expected = torch.zeros(6, 4, dtype=torch.float64)
    for n in range(6):
        for c in range(4):
            p = logits[n, c].sigmoid()
            hit = -0.25 * (1 - p) ** 2 * p.log()
            miss = -0.75 * p**2 * (1 - p).log()
            expected[n, c] = (hit if target[n] == c else miss) * (1 if weight is None else weight[target[n]])
    y = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    torch.testing.assert_close(y, expected)
    # MMCV's own backward multiplies by the gradient of the output, so a sum is what it is made for.
    ours = torch.autograd.grad(ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'sum'), logits)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(expected.sum(), logits)[0])


@pytest.mark.parametrize(
    ('call', 'op'),
    [
        (lambda: ops.nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5), 'nms_rotated'),
        (lambda: ops.nms_match(torch.rand(3, 5), 0.5), 'nms_match'),
        (lambda: ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, 'max'), 'roi_align'),
    ],
    ids=['nms_rotated', 'nms_match', 'roi_align-max'],
)
def test_an_absent_op_says_its_name_and_the_cure(call, op):
    with pytest.raises(NotImplementedError, match=f"'{op}'.*pip install mmcv"):
        call()
