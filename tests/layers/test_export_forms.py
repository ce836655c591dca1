"""Exported layers: every form equals the layer, for every batch, in plain operators."""

import pytest
import torch
from torch import nn

from mmdyn import DynamicConv
from mmdyn.layers import export_form
from mmdyn.layers.execution import OLD_DYNAMO
from mmdyn.layers.export_forms import FORMS, UNROLLED

# (in channels, out channels, kernel, stride, padding, dilation, groups, size)
WAYS = [
    (4, 6, 3, 2, 1, 1, 1, (9, 8)),
    (4, 6, 1, 1, 0, 1, 1, (5, 7)),
    (6, 4, (3, 1), (1, 2), (2, 0), 2, 2, (9, 9)),
    (6, 6, 3, 1, 1, 1, 6, (7, 7)),
]


def layer_of(way) -> DynamicConv:
    return DynamicConv(*way[:7], bias=True).eval().requires_grad_(False)


def operators(exported) -> set[str]:
    graphs = [m.graph for m in exported.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    return {str(node.target) for graph in graphs for node in graph.nodes if node.op == 'call_function'}


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('way', WAYS, ids=str)
def test_any_batch(way, form, strict):
    if strict and OLD_DYNAMO:
        pytest.skip('PyTorch 2.7 cannot tell a strict export from compiling')
    layer = layer_of(way)
    example = torch.randn(2, way[0], *way[7])
    with export_form(form):
        exported = torch.export.export(
            layer, (example,), dynamic_shapes=({0: torch.export.Dim('batch', max=4096)},), strict=strict
        )
    assert not [name for name in operators(exported) if 'mmdyn' in name]  # any runtime can have these
    for batch in (1, 2, 5):
        x = torch.randn(batch, way[0], *way[7])
        torch.testing.assert_close(exported.module()(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('batch', [1, 3, UNROLLED + 1])
@pytest.mark.parametrize('way', WAYS, ids=str)
def test_a_known_batch_is_unrolled_up_to_a_limit(way, batch):
    layer, x = layer_of(way), torch.randn(batch, way[0], *way[7])
    exported = torch.export.export(layer, (x,), strict=False)
    convs = [n for n in exported.graph.nodes if 'conv2d' in str(n.target)]
    assert len(convs) == (batch if batch <= UNROLLED else 0)
    torch.testing.assert_close(exported.module()(x), layer(x), rtol=1e-5, atol=1e-5)


def test_the_form_is_chosen_while_it_is_in_force():
    layer, x = layer_of(WAYS[0]), torch.randn(1, 4, 9, 8)

    def widest_kernel() -> tuple[int, int]:
        graph = torch.export.export(layer, (x,), strict=False).graph
        node = next(n for n in graph.nodes if 'conv2d' in str(n.target))
        return tuple(node.args[1].meta['val'].shape[:2])

    assert widest_kernel() == (6, 4)
    with export_form('mixed_outputs'):
        assert widest_kernel() == (24, 4)
        with export_form('mixed_inputs'):
            assert widest_kernel() == (6, 16)
        assert widest_kernel() == (24, 4)
    assert widest_kernel() == (6, 4)
    with pytest.raises(ValueError, match=r"one of \['per_sample'.*got 'fold'"), export_form('fold'):
        pass


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = DynamicConv(4, 6, 3, 2, 1, bias=True)

    def forward(self, x):
        with torch.autocast('cpu', torch.bfloat16):
            return self.layer(x)


@pytest.mark.parametrize(
    'tool',
    [
        lambda m, x: torch.export.export(m, (x,), strict=False).module(),
        lambda m, x: torch.export.export(
            m, (x,), dynamic_shapes=({0: torch.export.Dim('batch', max=4096)},), strict=False
        ).module(),
        lambda m, x: torch.jit.trace(m, x, check_trace=False),
    ],
    ids=['export', 'export, any batch', 'trace'],
)
@pytest.mark.filterwarnings('ignore:.*torch.jit.trace:FutureWarning')
def test_autocast_inside(tool):
    model = Half().eval().requires_grad_(False)
    x = torch.randn(2, 4, 16, 16)
    found = tool(model, x)(x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - model.layer(x)).abs().max() <= 2**-6 * model.layer(x).abs().max()


@pytest.mark.filterwarnings('ignore:.*torch.jit.trace:FutureWarning')
def test_traces_for_any_batch():
    layer = DynamicConv(4, 6, 3, 2, 1, groups=2).eval()
    traced = torch.jit.trace(layer, torch.randn(2, 4, 9, 9))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 9, 9)
        torch.testing.assert_close(traced(x), layer(x), rtol=1e-5, atol=1e-5)
