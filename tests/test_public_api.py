"""What the package offers, and which way its imports go."""

import ast
import importlib

import pytest

from conftest import ROOT

PACKAGES = [
    'mmdyn',
    *(
        f'mmdyn.{p.parent.name}'
        for p in sorted((ROOT / 'mmdyn').glob('*/__init__.py'))
        if p.parent.name not in ('ablation', 'analysis')
    ),
]
# Later rooms may import earlier ones.
ORDER = [
    'version',
    'errors',
    'registry',
    'files',
    'logs',
    'checkpoints',
    'tasks',
    'host',
    'layers',
    'models',
    'annotations',
    'datasets',
    'metrics',
    'classify',
    'engine',
    'running',
    'convert',
    'inference',
    'analysis',
    'reports',
    'routing',
    'surgery',
    'export',
    'ablation',
]
# Within a room with layers likewise; files of a row do not import each other.
LAYERS = {
    'layers': [
        ['geometry', 'conv_unit', 'running_norm'],
        ['export_forms', 'c2psa', 'sppf', 'router'],
        ['execution'],
        ['global_mean'],
        ['dynamic_conv'],
        ['fdconv', 'odconv'],
        ['c3k2', 'folding', 'recording', 'upcycling'],
    ],
    'annotations': [['cache', 'faults'], ['table'], ['image_files'], ['coco', 'dota', 'voc', 'yolo']],
    'datasets': [
        ['complete_coco', 'data_source', 'image_cache', 'photograph', 'pixels', 'rectangles', 'voc_to_coco'],
        ['collate', 'keypoints', 'outlines'],
        ['oriented'],
        ['transforms'],
        ['array_dataset'],
        ['checked_coco', 'yolo_text', 'voc_xml', 'dota'],
        ['digits', 'tiling'],
    ],
    'inference': [
        ['onnx_detector', 'media', 'packaged'],
        ['runtimes', 'prediction'],
        ['checkpoint_detector', 'exported_detector', 'slicing', 'tracking'],
        ['load'],
        ['evaluation', 'results'],
    ],
    'export': [['graph', 'quantise', 'writers'], ['options'], ['agreement'], ['export'], ['benchmark']],
    'running': [
        ['messages', 'amp', 'processes', 'testing'],
        ['image_channels', 'image_size'],
        ['config_file', 'dataset_images'],
        ['training_options'],
        ['auto_batch', 'common_options', 'launch', 'loading'],
    ],
    'metrics': [['oriented_iou'], ['coco_evaluation'], ['coco_metric']],
    'reports': [['matching'], ['figures'], ['report'], ['classification'], ['hook']],
    'convert': [
        ['key_table', 'original_file', 'stored_config'],
        ['variant'],
        ['conversion'],
        ['weights'],
        ['pretrained'],
    ],
    'routing': [['statistics', 'audit'], ['hook'], ['analysis']],
    'surgery': [['counterpart'], ['upcycle', 'collapse']],
}
SOURCES = sorted(p for p in (ROOT / 'mmdyn').glob('*/**/*.py') if '.mim' not in p.parts and not p.is_symlink())


def name(path):
    return path.relative_to(ROOT / 'mmdyn').as_posix()


@pytest.mark.parametrize('package', PACKAGES)
def test_everything_promised_is_there(package):
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(module.__all__) == len(set(module.__all__))


def test_version_is_read_without_importing():
    import mmdyn

    assert f"'{mmdyn.__version__}'" in (ROOT / 'mmdyn/version.py').read_text()


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize('path', SOURCES, ids=name)
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT / 'mmdyn').parts[0]
    own = ORDER.index(room)
    rooms = [name.split('.')[1] for name in imports(path) if name.startswith('mmdyn.')]
    assert all(ORDER.index(room) <= own for room in rooms), rooms
    if room == 'layers':
        assert not [name for name in imports(path) if name.split('.')[0] in ('mmdet', 'mmyolo')]


@pytest.mark.parametrize('room', LAYERS)
def test_imports_within_a_room_point_one_way(room):
    layer_of = {name: i for i, row in enumerate(LAYERS[room]) for name in row}
    files = [path for path in (ROOT / 'mmdyn' / room).glob('*.py') if path.stem != '__init__']
    parts = {path.stem: [path] for path in files}
    parts |= {path.parent.name: [*path.parent.glob('*.py')] for path in (ROOT / 'mmdyn' / room).glob('*/__init__.py')}
    assert parts.keys() == layer_of.keys()
    for name, path in [(name, path) for name, paths in parts.items() for path in paths]:
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        inside = path.stem != name  # a file of a folder, whose siblings are not those of the folder
        siblings = {n.module.split('.')[0] for n in nodes if n.level == (2 if inside else 1)}
        siblings |= {n.module.split('.')[2] for n in nodes if (n.module or '').startswith(f'mmdyn.{room}.')}
        assert all(layer_of[s] < layer_of[name] for s in siblings), (path, siblings)


@pytest.mark.parametrize('path', SOURCES, ids=name)
def test_files_are_named_for_what_they_do(path):
    assert path.stem not in ('utils', 'misc', 'common', 'helpers')
