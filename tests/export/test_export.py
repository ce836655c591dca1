"""Exported files: equal to PyTorch in their runtimes, for every batch; the runtime without PyTorch; every refusal."""

import copy
import json
from contextlib import nullcontext
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from conftest import ROOT
from mmdyn.datasets import photograph
from mmdyn.errors import UserError
from mmdyn.export import agreement
from mmdyn.export.agreement import examples
from mmdyn.export.export import export_detector
from mmdyn.export.graph import DetectionGraph, _nms_by_class
from mmdyn.export.options import ExportOptions
from mmdyn.inference.onnx_detector import Limits
from mmdyn.inference.runtimes import open_exported
from mmdyn.layers import DynamicConv, dynamic_layers
from mmdyn.running import load_checkpoint_model

pytest.importorskip('onnxscript', reason='needs requirements/deploy.txt')
pytestmark = [
    pytest.mark.filterwarnings('ignore:::(?!mmdyn)', 'ignore::DeprecationWarning'),
    pytest.mark.xdist_group('exported files'),  # they are made once
]
DYNAMIC = 'yolo11n_dynconv_digits.py'
SUFFIX = {'onnx': '.onnx', 'openvino': '.xml', 'torch_export': '.pt2', 'ncnn': '.param'}


@pytest.fixture(scope='module')
def dynamic(alike, digits):
    options = {f'{name}_dataloader.dataset.data_root': str(digits) for name in ('train', 'val', 'test')}
    # scores of an untaught detector are low
    return alike(DYNAMIC, **options, **{'model.test_cfg.score_thr': 1e-4, 'model.test_cfg.max_per_img': 50})


@pytest.fixture(scope='module')
def files(dynamic, tmp_path_factory):
    """Exported files by format and options, made when first asked for."""
    cfg, checkpoint = dynamic
    folder, made = tmp_path_factory.mktemp('exported'), {}

    def export(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            name = ', '.join(f'{k}={v}' for k, v in key) or 'plain'  # a comma in a path, too
            target = folder / f'{name}{SUFFIX[options.get("format", "onnx")]}'
            made[key] = export_detector(cfg, checkpoint, target, ExportOptions(**options))
        return made[key]

    return export


@pytest.fixture(scope='module')
def reference(dynamic):
    """Images, and what PyTorch gives for them."""
    cfg, checkpoint = dynamic
    model = load_checkpoint_model(cfg, checkpoint).model
    images = examples(model, (320, 320), 5)
    with torch.no_grad():
        boxes, scores = DetectionGraph(model)(images)
    return images.numpy(), boxes.numpy(), scores.numpy()


@pytest.mark.parametrize('form', [None, 'mixed_outputs', 'mixed_inputs'])
@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
def test_the_result_does_not_depend_on_the_batch(files, reference, kind, form):
    images, boxes, scores = reference
    detector = open_exported(files(format=kind, form=form).path)
    for batch in (1, 2, 5):
        found_boxes, found_scores = detector.run(images[:batch])
        np.testing.assert_allclose(found_boxes, boxes[:batch], atol=0.01)
        np.testing.assert_allclose(found_scores, scores[:batch], atol=1e-5)
    for place in range(5):  # the first of a batch does not decide for the others
        np.testing.assert_allclose(detector.run(images[place : place + 1])[1], scores[place : place + 1], atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-5


FAMILY = ('odconv-bn_experts4', 'c3k2_odconv-bn', 'fdconv-bn', 'dynconv-bn_normalised-mlp')


@pytest.mark.processes
@pytest.mark.parametrize('name', FAMILY)
def test_the_family_is_exported(alike, tmp_path, name):
    cfg, checkpoint = alike(f'ablations/yolo11n_{name}_digits.py')
    model = load_checkpoint_model(cfg, checkpoint).model
    images = examples(model, (320, 320), 3)
    with torch.no_grad():
        boxes, scores = DetectionGraph(model)(images)
    session = open_exported(export_detector(cfg, checkpoint, tmp_path / 'x.onnx', ExportOptions()).path)
    for batch in (1, 3):
        found_boxes, found_scores = session.run(images[:batch].numpy())
        np.testing.assert_allclose(found_boxes, boxes[:batch], atol=0.01)
        np.testing.assert_allclose(found_scores, scores[:batch], atol=1e-5)
    assert 'FFT' not in ' '.join(operators(tmp_path / 'x.onnx'))


@pytest.mark.parametrize('options', [dict(batch=1), dict(batch=3), dict(format='openvino', batch=1)], ids=str)
def test_a_fixed_batch_is_filled_up(files, reference, options):
    images, _, scores = reference
    detector = open_exported(files(**options).path)
    whole = [
        d
        for i in range(0, 5, options['batch'])
        for d in detector.detect(images[i : i + options['batch']], Limits(1e-4))
    ]
    assert len(whole) == 5
    for found, one in zip(whole, scores, strict=True):
        assert found.scores[0] == pytest.approx(one.max(), abs=1e-5)
    with pytest.raises(ValueError, match=f'takes {options["batch"]} images at a time, got 5'):
        detector.detect(images, Limits(0.1))


@pytest.mark.slow
def test_a_process_that_closed_openvino_files_outlives_its_children(files, run):
    """The end of a data loader's worker is a signal, and OpenVINO lends the process the stack that signals run on."""
    path = files(format='openvino', batch=1).path
    script = (
        'import signal, subprocess, sys; from mmdyn.inference.runtimes import open_exported\n'
        'signal.signal(signal.SIGCHLD, lambda *_: None)\n'
        'opened = [open_exported(sys.argv[1]) for _ in range(3)]\n'
        'while opened: del opened[0]  # in the order of opening\n'
        'subprocess.run([sys.executable, "-c", ""], check=True)'
    )
    done = run('-c', script, path)
    assert done.returncode == 0, done.stderr


def test_ncnn(files, reference):
    pytest.importorskip('pnnx')
    images, boxes, scores = reference
    done = files(format='ncnn', batch=1)
    assert done.form == 'mixed_outputs'
    detector = open_exported(done.path)
    for place in range(2):
        found_boxes, found_scores = detector.run(images[place : place + 1])
        np.testing.assert_allclose(found_boxes[0], boxes[place], atol=0.01)
        np.testing.assert_allclose(found_scores[0], scores[place], atol=1e-5)
    assert detector.names == list('0123456789')


def operators(path) -> set[str]:
    import onnx

    def below(graph):
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    yield from below(attribute.g)

    return {node.op_type for node in below(onnx.load(path).graph)}


def test_a_loop_needs_an_exporter_that_knows_it(monkeypatch):
    from mmdyn.export import options

    model = torch.nn.Sequential(DynamicConv(4, 4, 3))
    monkeypatch.setattr(options, 'writes_loops', lambda: False)
    for batch in (None, 17):
        with pytest.raises(UserError, match='Install PyTorch 2.8 or later, or give --batch N of at most 16, or --form'):
            options.choose_form(model, ExportOptions(batch=batch))
    assert options.choose_form(model, ExportOptions(batch=16))[0] == 'per_sample'
    assert options.choose_form(model, ExportOptions(form='mixed_outputs'))[0] == 'mixed_outputs'
    assert options.choose_form(model, ExportOptions(format='torch_export'))[0] == 'per_sample'


def test_the_form_is_that_of_the_target(files):
    static_batch, any_batch, constant = files(batch=1), files(), files(form='mixed_outputs')
    assert 'Scan' not in operators(static_batch.path)
    assert 'Scan' in operators(any_batch.path)
    assert 'Scan' not in operators(constant.path)
    assert 'one convolution per image' in static_batch.cost
    assert 'a loop over the images' in any_batch.cost
    assert '4 times the work' in constant.cost


@pytest.mark.parametrize(
    'options', [dict(), dict(format='openvino'), dict(format='torch_export'), dict(batch=5)], ids=str
)
def test_nms_in_the_graph_is_nms_outside(files, reference, options):
    images, boxes, scores = reference
    inside = open_exported(files(nms=True, **options).path)
    outside = open_exported(files().path)
    for found, one_boxes, one_scores in zip(inside.detect(images, Limits(1e-4)), boxes, scores, strict=True):
        rows, expected, labels = outside.select(one_boxes, one_scores, Limits(1e-4))
        assert len(found.scores) == len(expected) == 50
        np.testing.assert_allclose(found.scores, expected, atol=1e-5)
        same = np.abs(np.diff(expected)) > 1e-5  # equal scores may change places
        same = np.append(same, True) & np.insert(same, 0, True)
        np.testing.assert_allclose(found.boxes[same], one_boxes[rows][same], atol=0.05)
        assert (found.labels[same] == labels[same]).all()


def test_nms_equals_that_of_mmcv():
    from mmcv.ops import batched_nms

    corners = torch.rand(2, 40, 2) * 30
    boxes = torch.cat((corners, corners + torch.rand(2, 40, 2) * 20 + 1), dim=2)
    scores = torch.rand(2, 3, 40)
    kept = _nms_by_class(boxes, scores, 0.5, 0.3)
    for image in range(2):
        label, place = (scores[image] > 0.3).nonzero(as_tuple=True)
        _, index = batched_nms(
            boxes[image, place], scores[image, label, place], label, dict(type='nms', iou_threshold=0.5)
        )
        expected = set(zip(label[index].tolist(), place[index].tolist(), strict=True))
        assert {(c, p) for i, c, p in kept.tolist() if i == image} == expected
        assert len(expected) < len(label)


@pytest.mark.parametrize('kind', ['onnx', 'openvino', 'torch_export'])
def test_half_precision(files, reference, kind):
    images, _, scores = reference
    done = files(format=kind, half=True, batch=2)
    _, found = open_exported(done.path).run(images[:2])
    assert found.dtype == np.float32
    assert np.abs(found - scores[:2]).max() < 0.05
    assert done.size < 0.7 * files(format=kind, batch=2).size


def test_height_and_width_may_be_open(files, dynamic):
    cfg, checkpoint = dynamic
    model = load_checkpoint_model(cfg, checkpoint).model
    detector = open_exported(files(square=False).path)
    for height, width in ((64, 320), (256, 96)):
        images = torch.rand(2, 3, height, width)
        with torch.no_grad():
            boxes, scores = DetectionGraph(model)(images)
        found_boxes, found_scores = detector.run(images.numpy())
        np.testing.assert_allclose(found_boxes, boxes, atol=0.01)
        np.testing.assert_allclose(found_scores, scores, atol=1e-5)
    prepared, _ = detector.prepare(np.zeros((100, 200, 3), np.uint8))
    assert prepared.shape == (1, 3, 160, 320)


def test_a_fixed_batch_takes_images_of_several_shapes(files):
    detector = open_exported(files(square=False, batch=2).path)
    images = [np.full((200, 320, 3), 90, np.uint8), np.full((320, 100, 3), 90, np.uint8)]
    together = detector(images, 1e-4)
    for image, found in zip(images, together, strict=True):
        np.testing.assert_allclose(found.scores, detector(image, 1e-4).scores, atol=1e-5)


def test_nms_in_the_graph_is_as_it_was_exported(files, dynamic):
    from mmdyn.inference.exported_detector import use_exported

    done, (cfg, _) = files(nms=True), dynamic
    with pytest.raises(ValueError, match=r'is fixed at 0\.7'):
        open_exported(done.path)(np.zeros((9, 9, 3), np.uint8), iou=0.5)
    other = copy.deepcopy(cfg)
    other.model.test_cfg.nms.iou_threshold = 0.5
    with pytest.raises(UserError, match=r'has NMS with iou_threshold=0\.7, but the config has 0\.5'):
        use_exported(other, done.path)


def test_nothing_found_is_not_called_equal(dynamic, tmp_path):
    cfg, checkpoint = copy.deepcopy(dynamic[0]), dynamic[1]
    cfg.model.test_cfg.score_thr = 0.999
    done = export_detector(cfg, checkpoint, tmp_path / 'x.onnx', ExportOptions(nms=True, batch=1))
    assert np.isnan(done.boxes)


@pytest.mark.parametrize('opset', [18, 21])
def test_opsets(files, opset):
    import onnx

    model = onnx.load(files(opset=opset).path)
    assert max(entry.version for entry in model.opset_import if entry.domain == '') == opset


@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
def test_metadata(files, kind):
    meta = open_exported(files(format=kind, nms=True).path).meta
    assert meta['names'] == list('0123456789')
    assert (meta['stride'], meta['long_side'], meta['square'], meta['batch'], meta['nms']) == (
        32,
        320,
        True,
        None,
        True,
    )
    assert meta['std'] == [255.0] * 3
    assert ExportOptions().opset == 18  # what --help promises


@pytest.mark.parametrize(
    ('half', 'pixels', 'score', 'agrees'),
    [
        *((False, 0.009, 9e-5, True), (False, 0.02, 0, False), (False, 0, 2e-4, False)),
        *((True, 3.9, 0.049, True), (True, 4.1, 0, False), (True, 0, 0.06, False)),
    ],
)
def test_how_much_an_exported_file_may_differ(monkeypatch, half, pixels, score, agrees):
    expected = dict(boxes=torch.rand(1, 5, 4) * 100, scores=torch.rand(1, 5, 3) / 2 + 0.2)
    arrays = (expected['boxes'] + pixels).numpy(), (expected['scores'] + score).numpy()
    found = SimpleNamespace(run=lambda images: arrays, outputs=list(expected))
    monkeypatch.setattr(agreement, 'open_exported', lambda path: found)
    with nullcontext() if agrees else pytest.raises(UserError, match='onnx differs from PyTorch'):
        agreement.check_agreement('', torch.zeros(1), expected, None, ExportOptions(half=half))


@pytest.mark.parametrize(
    ('name', 'off', 'agrees'),
    [
        *(('keypoints', (0.009, 0.009, 9e-5), True), ('keypoints', (0.02, 0, 0), False)),
        *(('keypoints', (0, 0, 2e-4), False), ('keypoints', (0, 0, float('nan')), False)),
        *(('coefficients', 9e-5, True), ('coefficients', 2e-4, False)),
        *(('prototypes', 9e-5, True), ('prototypes', 2e-4, False), ('prototypes', float('nan'), False)),
    ],
)
def test_how_much_the_outputs_of_a_task_may_differ(monkeypatch, name, off, agrees):
    expected = dict(boxes=torch.rand(1, 5, 4) * 100, scores=torch.rand(1, 5, 3) / 2 + 0.2)
    if name == 'keypoints':
        expected['keypoints'] = torch.ones(1, 5, 2, 3)
    else:
        expected |= dict(coefficients=torch.ones(1, 5, 4), prototypes=torch.ones(1, 4, 8, 8))
    arrays = [(value + torch.tensor(off) if key == name else value).numpy() for key, value in expected.items()]
    found = SimpleNamespace(run=lambda images: arrays, outputs=list(expected))
    monkeypatch.setattr(agreement, 'open_exported', lambda path: found)
    with nullcontext() if agrees else pytest.raises(UserError, match='onnx differs from PyTorch'):
        agreement.check_agreement('', torch.zeros(1), expected, None, ExportOptions())


def test_agreement_is_measured_on_normalised_photographs():
    preprocessor = SimpleNamespace(mean=torch.tensor([1.0, 2.0, 3.0])[:, None, None], std=torch.tensor(50.0))
    images = examples(SimpleNamespace(data_preprocessor=preprocessor), (64, 96), 2)
    expected = (photograph((64, 96)) - torch.tensor([1.0, 2.0, 3.0])[:, None, None]) / 50
    torch.testing.assert_close(images, torch.cat([expected, expected.flip(3)]))


@pytest.mark.parametrize('size', [(320, 320), (427, 640), (640, 427), (100, 333), (33, 20)])
def test_images_are_prepared_as_the_pipeline_does(files, dynamic, tmp_path, size):
    from mmcv.transforms import Compose
    from mmengine.registry import DefaultScope

    cfg, checkpoint = dynamic
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        steps = [step for step in cfg.test_dataloader.dataset.pipeline if 'Annotations' not in step['type']]
        from mmengine.registry import TRANSFORMS

        data = Compose([TRANSFORMS.build(step) for step in steps])(dict(img_path=str(tmp_path / 'image.png'), img_id=0))
    model = load_checkpoint_model(cfg, checkpoint).model
    batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    expected = model.data_preprocessor(batch, False)['inputs'].numpy()
    found, placement = open_exported(files().path).prepare(image)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    sample = data['data_samples']
    assert placement.scale == pytest.approx(sample.scale_factor)
    assert (placement.top, placement.left) == (sample.pad_param[0], sample.pad_param[2])


WITHOUT_PYTORCH = """
import runpy, sys
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmyolo', 'mmdyn', 'timm'):
    sys.modules[name] = None
sys.argv = ['onnx_detector.py', *sys.argv[1:]]
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


def test_the_runtime_needs_no_pytorch(run, files, tmp_path, digits):
    image = tmp_path / 'image.png'
    image.write_bytes(sorted((digits / 'val').iterdir())[0].read_bytes())
    script = ROOT / 'mmdyn/inference/onnx_detector.py'
    done = run('-c', WITHOUT_PYTORCH, script, files().path, image)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'image.detected.jpg').exists()
    done = run('-c', WITHOUT_PYTORCH, script, files().path, image, '--score', '1', '--out-dir', tmp_path / 'pictures')
    assert (done.returncode, done.stdout) == (0, f'{image}: no object of a score above 1\n')
    assert (tmp_path / 'pictures/image.detected.jpg').exists()
    for arguments, message in (
        ([files().path, tmp_path / 'none.jpg'], 'is not an image that OpenCV reads'),
        ([image, image], 'does not load in ONNX Runtime'),
    ):
        done = run('-c', WITHOUT_PYTORCH, script, *arguments)
        assert (done.returncode, message in done.stderr, 'Traceback' in done.stderr) == (1, True, False), done.stderr


@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
@pytest.mark.slow
@pytest.mark.processes
def test_int8(files, dynamic, reference, kind):
    pytest.importorskip('nncf')
    images, _, scores = reference
    done = files(format=kind, int8=True, calibration=8)
    _, found = open_exported(done.path).run(images[:2])
    assert np.corrcoef(np.log(found.ravel()), np.log(scores[:2].ravel()))[0, 1] > 0.9
    experts = sum(4 * layer.weight.numel() for layer in dynamic_layers(load_checkpoint_model(*dynamic).model).values())
    assert experts < done.size < 0.85 * files(format=kind).size  # experts stay in float32, the rest does not
    assert open_exported(done.path).meta['names']


BAD_OPTIONS = {
    'ncnn': (dict(format='ncnn'), r'ncnn takes a fixed number of images of a fixed size, without NMS: set --batch 1'),
    'ncnn and mixed kernels': (dict(format='ncnn', batch=1, form='per_sample'), r'ncnn needs constant kernels'),
    'opset': (dict(opset=11), r'--opset must be from 18 to 23, got 11'),
    'batch': (dict(batch=0), r'--batch must be dynamic or at least 1, got 0'),
    'format': (
        dict(format='tflite'),
        r'--format must be one of onnx, openvino, torch_export, ncnn, coreml, litert, engine, got tflite',
    ),
    'form': (dict(form='folded'), r'--form must be one of per_sample'),
    'int8 of a program': (
        dict(format='torch_export', int8=True),
        r'--int8 is for onnx, openvino, coreml, litert, without --half',
    ),
    'int8 and half': (dict(int8=True, half=True), r'without --half'),
}


@pytest.mark.parametrize('name', BAD_OPTIONS)
def test_bad_options(dynamic, tmp_path, name):
    options, message = BAD_OPTIONS[name]
    with pytest.raises(UserError, match=message):
        export_detector(*dynamic, tmp_path / 'x.onnx', ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_a_missing_runtime_is_named(dynamic, tmp_path, monkeypatch):
    from mmdyn.export import options as export_options

    monkeypatch.setattr(export_options, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'needs onnx and onnxscript and openvino: pip install -r requirements/deploy'):
        export_detector(*dynamic, tmp_path / 'x.xml', ExportOptions(format='openvino'))


def test_checkpoints_that_do_not_fit(dynamic, alike, tmp_path):
    cfg, _ = dynamic
    _, other = alike('yolo11n_coco.py')
    with pytest.raises(UserError, match='has another architecture than the config'):
        export_detector(cfg, other, tmp_path / 'x.onnx', ExportOptions())
    with pytest.raises(UserError, match=r'a file for onnx must end in \.onnx'):
        export_detector(cfg, other, tmp_path / 'x.xml', ExportOptions())
    assert not list(tmp_path.iterdir())


def test_a_result_that_differs_is_not_published(dynamic, tmp_path, monkeypatch):
    from mmdyn.layers import export_forms

    monkeypatch.setitem(export_forms.FORMS, 'per_sample', lambda *a: 1.1 * export_forms.mixed_outputs(*a))
    target = tmp_path / 'x.onnx'
    target.write_text('the one before')
    with pytest.raises(UserError, match='differs from PyTorch'):
        export_detector(*dynamic, target, ExportOptions())
    assert target.read_text() == 'the one before'
    assert [p.name for p in tmp_path.iterdir()] == ['x.onnx']


def test_files_that_are_not_ours(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info('x', TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info('y', TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node('Identity', ['x'], ['y'])], 'g', [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    onnx.save(model, tmp_path / 'foreign.onnx')
    (tmp_path / 'noise.onnx').write_bytes(b'noise')
    (tmp_path / 'noise.xml').write_bytes(b'<noise')
    for name, message in (
        ('foreign.onnx', r'was not exported by mmdyn'),
        ('noise.onnx', 'does not load in ONNX Runtime'),
        ('noise.xml', 'does not load in OpenVINO'),
        ('none.onnx', 'no exported file at'),
    ):
        with pytest.raises(UserError, match=message):
            open_exported(tmp_path / name)


@pytest.mark.slow
def test_the_tools(call, dynamic, digits, tmp_path):
    """Export, then every box, score and class of the exported file against the checkpoint's, by the evaluator."""
    _, checkpoint = dynamic
    config, out = ROOT / 'configs' / DYNAMIC, tmp_path / 'model.onnx'
    loaders = [f'{name}_dataloader.dataset.data_root={digits}' for name in ('train', 'val', 'test')]
    loaders += ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    loaders += ['test_dataloader.dataset.batch_shapes_cfg=None', 'model.test_cfg.score_thr=0.0001']
    done = call(ROOT / 'tools/export.py', config, checkpoint, '--out', out, '--cfg-options', *loaders)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'kernels mixed in the graph' in done.stdout
    rows = []
    for file in (checkpoint, out):
        prefix = tmp_path / file.stem
        common = ('--work-dir', tmp_path / 'w', '--json-prefix', prefix, '--cfg-options', *loaders)
        done = call(ROOT / 'tools/test.py', config, file, *common)
        assert done.returncode == 0, done.stderr[-2000:]
        rows.append(json.loads(prefix.with_suffix('.bbox.json').read_text()))
    ours, theirs = (
        {(r['image_id'], r['category_id'], *(round(v, 0) for v in r['bbox'])): r for r in part} for part in rows
    )
    assert len(ours) > 500
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 0.97 * len(ours)  # the rest sits at a rounding, or at the end of the list
    for key in shared:
        assert ours[key]['score'] == pytest.approx(theirs[key]['score'], abs=1e-3)
        assert ours[key]['bbox'] == pytest.approx(theirs[key]['bbox'], abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['model.onnx', '--tta'], '--tta and --fuse are for checkpoints'),
        (['model.pt2'], r'A .pt2 can run code when loaded'),
        (['none.onnx'], 'no exported file at'),
    ],
)
def test_the_test_tool_refuses(call, arguments, message):
    done = call('tools/test.py', ROOT / 'configs' / DYNAMIC, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
