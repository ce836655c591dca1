"""Initial weights: by kind of layer, the same distribution as the original's."""

import math

import pytest
import torch

import original
from mmdyn.convert.key_table import original_names
from mmdyn.convert.variant import find_variant
from mmdyn.models.build import build_model

pytestmark = pytest.mark.parity

CLASSES = 20
FINAL_BIASES = {'class bias': '.cv3.', 'box bias': '.cv2.'}


def kind_of(name, tensor):
    """Kind of a tensor, by its name in the original and its shape."""
    if 'cond_conv' in name:
        return 'experts'
    if 'routing' in name:
        return f'router {name.rpartition(".")[2]}'
    if tensor.dim() == 4:
        return 'depthwise convolution' if tensor.shape[1] == 1 else 'convolution'
    if '.bn.' in name:
        return f'batch norm {name.rpartition(".")[2]}'
    return next(kind for kind, branch in FINAL_BIASES.items() if branch in name)


def by_kind(state_dict, names):
    """All values of a kind, each times the square root of its fan-in; what is fixed by the architecture is left out."""
    values: dict = {}
    for name in names:
        tensor = state_dict[name].float()
        kind = kind_of(name, tensor)
        fan_in = tensor[0].numel() if tensor.dim() > 1 else 1
        if kind == 'experts':
            fan_in = tensor[0].numel() / state_dict[name.replace('cond_conv.weight', 'fan')]
        if kind == 'router bias':
            fan_in = state_dict[name.replace('bias', 'weight')].shape[1]
        values.setdefault(kind, []).append(tensor.flatten() * math.sqrt(fan_in))
    return {kind: torch.cat(tensors) for kind, tensors in values.items()}


@pytest.mark.parametrize('variant', original.VARIANTS)
def test_distributions(variant):
    theirs = original.build('n', variant, CLASSES)
    ours = build_model(find_variant(theirs.state_dict(), 'Detect', 'it').load_config())
    ours.init_weights()
    names = original_names(ours.state_dict())
    expected = theirs.state_dict()
    found = {names[k]: v for k, v in ours.state_dict().items()}
    channels = {
        f'{name}.fan': torch.tensor(float(m.cond_conv.out_channels))
        for name, m in theirs.named_modules()
        if hasattr(m, 'cond_conv')
    }
    names = [name for name in names.values() if not name.endswith('num_batches_tracked')]
    ours_by_kind, theirs_by_kind = by_kind(found | channels, names), by_kind(expected | channels, names)
    kinds = {'convolution', 'depthwise convolution', 'class bias', 'box bias'}
    kinds |= {f'batch norm {part}' for part in ('weight', 'bias', 'running_mean', 'running_var')}
    dynamic = {'experts', 'router weight', 'router bias'} if variant != 'static' else set()
    assert ours_by_kind.keys() == theirs_by_kind.keys() == kinds | dynamic
    # The same for every side and bin: the softmax over bins does not see it, so 1 here and 2 there are one model.
    assert ours_by_kind.pop('box bias').unique() == 1
    assert theirs_by_kind.pop('box bias').unique() == 2
    torch.testing.assert_close(ours_by_kind.pop('class bias'), theirs_by_kind.pop('class bias'))
    for kind, values in ours_by_kind.items():
        other = theirs_by_kind[kind]
        noise = 4 / math.sqrt(len(values))  # four deviations of an estimate from so many values
        assert values.mean() == pytest.approx(other.mean().item(), abs=noise), kind
        assert values.std() == pytest.approx(other.std().item(), rel=noise, abs=1e-9), kind
        assert values.abs().max() == pytest.approx(other.abs().max().item(), rel=max(noise, 1e-3)), kind
