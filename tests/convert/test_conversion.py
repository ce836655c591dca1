"""Conversion of checkpoints: from files of another package and back, and what must not happen on the way."""

import math
import os
import pickle
import re
import struct
import zipfile

import pytest
import safetensors.torch
import torch
from mmengine.config import Config

from conftest import ROOT
from foreign import Package, random_state_dict, save_original, variant_of
from mmdyn.convert import convert_from_original, convert_to_original, read_original
from mmdyn.convert.key_table import PROJECTION, original_names
from mmdyn.errors import UserError
from mmdyn.models.build import build_model
from mmdyn.running.launch import build_runner

NAMES = ('ape', 'bee', 'cat')
STATIC = variant_of()
VARIANTS = {
    'static': STATIC,
    'dynconv': variant_of(kind='_dynconv'),
    'c3k2_dynconv': variant_of(kind='_c3k2_dynconv'),
    'both': variant_of(
        kind='_dynconv',
        model__backbone__block_cfg__type='C3k2_DynamicConv',
        model__neck__block_cfg__type='C3k2_DynamicConv',
    ),
    'eight experts': variant_of(
        kind='_dynconv', model__backbone__downsample_cfg__num_experts=8, model__neck__downsample_cfg__num_experts=8
    ),
    's': variant_of('s'),
    'm': variant_of('m'),
}


@pytest.fixture(scope='module')
def theirs():
    """A static YOLO11-n of the original."""
    return random_state_dict(STATIC)


@pytest.fixture
def file(tmp_path, theirs):
    """The same as a file of live objects."""
    return save_original(tmp_path / 'original.pt', theirs, NAMES)


def loaded(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('name', VARIANTS)
def test_there_and_back(name, tmp_path):
    variant = VARIANTS[name]
    theirs = random_state_dict(variant)
    file = save_original(tmp_path / 'original.pt', theirs, NAMES)
    conversion = convert_from_original(file, tmp_path / 'ours.pth')
    assert conversion.variant == variant
    assert conversion.classes == NAMES
    ours = loaded(tmp_path / 'ours.pth')
    assert ours['meta']['dataset_meta']['classes'] == NAMES
    model = build_model(conversion.variant.load_config())
    model.load_state_dict(ours['state_dict'])
    assert conversion.parameters == sum(p.numel() for p in model.parameters())
    names = original_names(ours['state_dict'])
    assert all(torch.equal(v, theirs[names[k]].half().to(v.dtype)) for k, v in ours['state_dict'].items())

    back = convert_to_original(tmp_path / 'ours.pth', tmp_path / 'back.pt')
    assert back.variant == variant
    assert back.classes == NAMES
    returned = loaded(tmp_path / 'back.pt')
    assert returned.keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k].half().to(v.dtype)) for k, v in returned.items())


def test_names_are_those_of_the_original():
    names = original_names(build_model(VARIANTS['both'].load_config()).state_dict())
    assert names['backbone.stage1.0.weight'] == 'model.1.cond_conv.weight'
    assert names['backbone.stage1.0.router.bias'] == 'model.1.routing.bias'
    assert names['backbone.stage1.1.blocks.0.conv2.weight'] == 'model.2.m.0.cv2.cond_conv.weight'
    assert names['backbone.stage3.1.blocks.0.blocks.1.conv1.conv.weight'] == 'model.6.m.0.m.1.cv1.conv.weight'
    assert names['backbone.stage3.1.blocks.0.final_conv.bn.bias'] == 'model.6.m.0.cv3.bn.bias'
    assert names['backbone.stage4.2.conv2.conv.weight'] == 'model.9.cv2.conv.weight'
    assert names['backbone.stage4.3.blocks.0.attention.position.bn.weight'] == 'model.10.m.0.attn.pe.bn.weight'
    assert names['neck.bottom_up_layers.0.main_conv.conv.weight'] == 'model.19.cv1.conv.weight'
    assert names['bbox_head.head_module.cls_preds.2.3.conv.weight'] == 'model.23.cv3.2.1.1.conv.weight'
    assert names['bbox_head.head_module.reg_preds.1.2.bias'] == 'model.23.cv2.1.2.bias'
    assert len(set(names.values())) == len(names)


def test_a_dynamic_conv_with_norm_and_activation_keeps_its_place():
    names = original_names(
        ['backbone.stage1.0.conv.weight', 'backbone.stage1.0.conv.router.weight', 'backbone.stage1.0.bn.bias']
    )
    assert list(names.values()) == ['model.1.conv.cond_conv.weight', 'model.1.conv.routing.weight', 'model.1.bn.bias']


def ema_of_a_training(path, theirs):
    save_original(path, theirs, NAMES, wrapper='ema', model=None, optimizer={'state': {0: torch.ones(2)}}, epoch=3)


def both_models(path, theirs):
    # The weights that train next to the average: the average counts.
    save_original(path, theirs, NAMES, wrapper='ema', model={'model.0.conv.weight': torch.zeros(1)})


FORMS = {
    'pickled model': lambda path, sd: save_original(path, sd, NAMES, wrapper=None),
    'model and no ema': lambda path, sd: save_original(path, sd, NAMES, ema=None, date='today'),
    'ema of a training': ema_of_a_training,
    'ema beside model': both_models,
    'state dict': lambda path, sd: torch.save(sd, path),
    'state dict of the wrapper': lambda path, sd: torch.save({f'model.{k}': v for k, v in sd.items()}, path),
    'under a key': lambda path, sd: torch.save({'state_dict': sd, 'epoch': 3}, path),
    'safetensors': lambda path, sd: safetensors.torch.save_file(sd, path.with_suffix('.safetensors')),
    'without counters': lambda path, sd: torch.save({k: v for k, v in sd.items() if 'num_batches' not in k}, path),
}


@pytest.mark.parametrize('form', FORMS)
def test_forms_of_a_file(form, tmp_path, theirs):
    path = tmp_path / 'original.pt'
    FORMS[form](path, theirs)
    path = path if path.exists() else path.with_suffix('.safetensors')
    conversion = convert_from_original(path, tmp_path / 'ours.pth')
    assert conversion.variant == STATIC
    state_dict = loaded(tmp_path / 'ours.pth')['state_dict']
    names = original_names(state_dict)
    for ours, tensor in state_dict.items():
        assert torch.allclose(tensor.float(), theirs[names[ours]].float(), atol=1e-3) or 'num_batches' in ours


def test_names_can_be_given(tmp_path, theirs):
    torch.save(theirs, tmp_path / 'plain.pt')
    assert convert_from_original(tmp_path / 'plain.pt', tmp_path / 'a.pth').classes is None
    assert 'dataset_meta' not in loaded(tmp_path / 'a.pth')['meta']
    assert convert_from_original(tmp_path / 'plain.pt', tmp_path / 'b.pth', classes=NAMES).classes == NAMES
    with pytest.raises(UserError, match='has 3 classes, but there are 2 class names: ape, bee'):
        convert_from_original(tmp_path / 'plain.pt', tmp_path / 'c.pth', classes=NAMES[:2])


def test_safetensors_keep_the_names(tmp_path, file):
    convert_from_original(file, tmp_path / 'ours.pth')
    convert_to_original(tmp_path / 'ours.pth', tmp_path / 'back.safetensors')
    assert read_original(tmp_path / 'back.safetensors').classes == NAMES
    assert convert_from_original(tmp_path / 'back.safetensors', tmp_path / 'again.pth').classes == NAMES


def without(state_dict, *keys):
    return {k: v for k, v in state_dict.items() if not k.startswith(keys)}


def yolov8(sd):
    """Its head is one layer earlier, and there is no attention."""
    return {k.replace('model.23.', 'model.22.'): v for k, v in without(sd, 'model.10.', 'model.22.').items()}


def headed(head):
    return lambda path, sd: save_original(path, sd | {'model.23.cv4.0.0.conv.weight': torch.zeros(1)}, head=head)


def folded(path, sd):
    torch.save({k: v for k, v in sd.items() if '.bn.' not in k} | {'model.0.conv.bias': torch.zeros(16)}, path)


def compressed(path, sd):
    torch.save(sd, path)
    with zipfile.ZipFile(path) as archive:
        records = {e.filename: archive.read(e) for e in archive.infolist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def damaged(path, sd):
    torch.save(sd, path)
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith('data/3'))
    with path.open('r+b') as stream:
        stream.seek(entry.header_offset + 26)
        name, extra = struct.unpack('<HH', stream.read(4))
        stream.seek(name + extra, os.SEEK_CUR)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))


WRONG = {
    'text': (lambda path, sd: path.write_text('weights'), 'damaged or not a PyTorch checkpoint: it was not written'),
    'empty': (lambda path, sd: path.write_bytes(b''), 'damaged or not a PyTorch checkpoint'),
    'zip of text': (
        lambda path, sd: zipfile.ZipFile(path, 'w').writestr('a', 'b'),
        'damaged or not a PyTorch checkpoint',
    ),
    'pickle': (lambda path, sd: path.write_bytes(pickle.dumps({'a': 1})), 'damaged or not a PyTorch checkpoint'),
    'a number': (lambda path, sd: torch.save(3, path), 'contains a int, not a model'),
    'a list': (lambda path, sd: torch.save({'model': [1]}, path), 'contains no YOLO model'),
    'nothing': (lambda path, sd: torch.save({}, path), 'contains no YOLO model: none of its 0 tensors'),
    'yolov8': (
        lambda path, sd: save_original(path, yolov8(sd)),
        'is a YOLOv8 or YOLOv9. Only a YOLO11 for classification, detection, oriented boxes, pose, segmentation, of',
    ),
    'yolov8 state dict': (lambda path, sd: torch.save(yolov8(sd), path), 'is a YOLOv8'),
    'segments without masks': (headed('Segment'), r'segment/yolo11n_coco\.py in \d+ tensors:\n.*cv4'),
    'poses without keypoints': (headed('Pose'), r'pose/yolo11n_coco\.py in \d+ tensors:\n.*cv4'),
    'poses of unknown keypoints': (
        lambda path, sd: torch.save(sd | {'model.23.cv4.0.2.weight': torch.zeros(12, 64, 1, 1)}, path),
        r'has 12 numbers of keypoints and does not state its kpt_shape: give it, for example --keypoints 4 3',
    ),
    'oriented boxes without angles': (headed('OBB'), r'obb/yolo11n_dota\.py in \d+ tensors:\n.*cv4'),
    'another head': (headed('v10Detect'), 'is a model that ends in v10Detect'),
    'yolo26': (headed('Segment26'), 'is a YOLO26, or another model without NMS'),
    'yolo26 as state dict': (
        lambda path, sd: torch.save(sd | {'model.23.one2one_cv2.0.0.conv.weight': torch.zeros(1)}, path),
        'is a YOLO26, or another model without NMS',
    ),
    'oriented boxes of one level': (
        lambda path, sd: torch.save(sd | {'model.23.cv4.0.2.weight': torch.zeros(1, 16, 1, 1)}, path),
        r'obb/yolo11n_dota\.py in \d+ tensors:\n.*cv4',
    ),
    'classifier': (
        lambda path, sd: save_original(path, without(sd, 'model.23.'), head='Classify'),
        'is another classifier',
    ),
    'yolo12': (lambda path, sd: torch.save(without(sd, 'model.22.', 'model.23.'), path), 'is another YOLO'),
    'folded': (folded, 'has its batch norms folded'),
    'no such scale': (
        lambda path, sd: torch.save(sd | {'model.0.conv.weight': torch.zeros(24, 3, 3, 3)}, path),
        r'is not a YOLO11 of scale n, s, m, l or x: its first kernels are \(24, 3, 3, 3\)',
    ),
    'four channels': (
        lambda path, sd: torch.save(sd | {'model.0.conv.weight': torch.zeros(16, 4, 3, 3)}, path),
        'is not a YOLO11 of scale',
    ),
    'missing': (
        lambda path, sd: torch.save(without(sd, 'model.5.conv.weight', 'model.7.bn.bias'), path),
        r'in 2 tensors:\n  missing model.5.conv.weight \(128, 128, 3, 3\)\n  missing model.7.bn.bias',
    ),
    'too many': (
        lambda path, sd: torch.save(sd | {'model.5.conv.bias': torch.zeros(128)}, path),
        r'in 1 tensors:\n  unexpected model.5.conv.bias \(128,\)',
    ),
    'another shape': (
        lambda path, sd: torch.save(sd | {'model.5.conv.weight': torch.zeros(1, 2)}, path),
        r'model.5.conv.weight is \(1, 2\), the model has \(128, 128, 3, 3\)',
    ),
    'huge by strides': (
        lambda path, sd: torch.save(sd | {'model.5.conv.weight': torch.zeros(1).expand(10**14)}, path),
        'larger than its storage in the file',
    ),
    'another projection': (
        lambda path, sd: torch.save(sd | {PROJECTION: torch.rand(1, 16, 1, 1)}, path),
        r'model.23.dfl.conv.weight other than 0 … 15',
    ),
    'ours already': (
        lambda path, sd: torch.save({'state_dict': build_model(STATIC.load_config()).state_dict()}, path),
        'is a checkpoint of this project already. --reverse',
    ),
    'safetensors of text': (
        lambda path, sd: path.with_suffix('.safetensors').write_text('{}'),
        'damaged or not a .safetensors',
    ),
    'compressed': (compressed, 'is compressed or has overlapping entries'),
    'wrong checksum': (damaged, 'the checksum of .*data/3 in it is wrong'),
}


STRIDES = 'model.22.cv2.conv.weight'


UNFIT = {
    'without data': lambda w: w.to('meta'),
    'integers': lambda w: w.long(),
    'complex': lambda w: w.to(torch.complex64),
    'sparse': lambda w: w.to_sparse(),
    'undefined': lambda w: w * float('nan'),
    'expanded': lambda w: torch.zeros(1).expand(w.shape),
}


@pytest.mark.filterwarnings('ignore:Validating sparse tensor invariants')
@pytest.mark.parametrize('kind', UNFIT)
def test_tensors_that_no_model_has(kind, tmp_path, theirs, file):
    """Refused on both ways, by name."""
    weight = UNFIT[kind](theirs[STRIDES])
    torch.save(theirs | {STRIDES: weight}, tmp_path / 'bad.pt')
    with pytest.raises(UserError, match=f'bad.pt: {STRIDES} '):
        convert_from_original(tmp_path / 'bad.pt', tmp_path / 'bad.pth')
    convert_from_original(file, tmp_path / 'ours.pth')
    content = loaded(tmp_path / 'ours.pth')
    name = 'neck.bottom_up_layers.1.final_conv.conv.weight'
    content['state_dict'][name] = weight
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(UserError, match=rf'bad\.pth(: {name} | is not a checkpoint that loads safely)'):
        convert_to_original(tmp_path / 'bad.pth', tmp_path / 'bad.back.pt')
    assert not (tmp_path / 'bad.back.pt').exists()


def test_numbers_of_a_file_are_bounded(tmp_path):
    """A model of a million experts would take minutes to build."""
    dynamic = random_state_dict(VARIANTS['dynconv'])
    many = {k: torch.zeros(10**5, *v.shape[1:]) for k, v in dynamic.items() if k.endswith('routing.weight')}
    torch.save(dynamic | many, tmp_path / 'many.pt')
    with pytest.raises(UserError, match='up to 100000 experts; at most 100000 and 256 can be converted'):
        convert_from_original(tmp_path / 'many.pt', tmp_path / 'many.pth')


def test_a_layer_of_many_tensors_many_times_is_refused(tmp_path):
    with Package('ultralytics.nn.tasks.DetectionModel') as classes:
        root, shared = classes['DetectionModel'](), classes['DetectionModel']()
        shared.__dict__['_parameters'] = dict.fromkeys(map(str, range(5000)), torch.zeros(1))
        root.__dict__['_modules'] = dict.fromkeys(map(str, range(4000)), shared)
        torch.save({'model': root}, tmp_path / 'wide.pt')
    with pytest.raises(UserError, match='it has more than 20000 layers and tensors'):
        read_original(tmp_path / 'wide.pt')


def test_order_of_the_keys_does_not_matter(tmp_path, theirs):
    torch.save(dict(reversed(theirs.items())), tmp_path / 'backwards.pt')
    assert convert_from_original(tmp_path / 'backwards.pt', tmp_path / 'ours.pth').variant == STATIC


NOT_OURS = {
    'a number': {'state_dict': 3},
    'a list': {'state_dict': [1]},
    'numbered': {1: torch.zeros(1)},
    'no tensor': {'state_dict': {'backbone.stem.conv.weight': None}},
}


@pytest.mark.parametrize('kind', NOT_OURS)
def test_back_refuses_what_is_no_state_dict(kind, tmp_path):
    torch.save(NOT_OURS[kind], tmp_path / 'odd.pth')
    with pytest.raises(UserError, match=r'odd\.pth contains no state dict of tensors'):
        convert_to_original(tmp_path / 'odd.pth', tmp_path / 'back.pt')


@pytest.mark.parametrize('meta', [None, {'dataset_meta': None}, {'dataset_meta': {'classes': 3}}])
def test_back_without_usable_meta_has_no_names(meta, tmp_path, file):
    convert_from_original(file, tmp_path / 'ours.pth')
    torch.save(loaded(tmp_path / 'ours.pth') | {'meta': meta}, tmp_path / 'odd.pth')
    assert convert_to_original(tmp_path / 'odd.pth', tmp_path / 'back.pt').classes is None


def test_targets_and_names_that_cannot_be(tmp_path, file):
    with pytest.raises(UserError, match=r'invalid target .*out\.safetensors: .* set a \.pth'):
        convert_from_original(file, tmp_path / 'out.safetensors')
    (tmp_path / 'link.pth').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'link\.pth exists'):
        convert_from_original(file, tmp_path / 'link.pth')
    with pytest.raises(UserError, match="class names must be a list, got the string 'abc'"):
        convert_from_original(file, tmp_path / 'ours.pth', classes='abc')
    convert_from_original(file, tmp_path / 'ours.pth', classes=['a\nb', 'c', 'd'])
    convert_to_original(tmp_path / 'ours.pth', tmp_path / 'back.safetensors')
    assert len(read_original(tmp_path / 'back.safetensors').classes) == 3


@pytest.mark.parametrize('name', WRONG)
def test_what_cannot_be_converted(name, tmp_path, theirs):
    make, message = WRONG[name]
    path = tmp_path / 'original.pt'
    make(path, theirs)
    path = path if path.exists() else path.with_suffix('.safetensors')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as error:
        convert_from_original(path, tmp_path / 'ours.pth')
    assert str(path) in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_missing_file_existing_target_wrong_scale(tmp_path, file):
    with pytest.raises(UserError, match=r'no checkpoint at .*nowhere\.pt'):
        convert_from_original(tmp_path / 'nowhere.pt', tmp_path / 'ours.pth')
    with pytest.raises(UserError, match='no checkpoint at'):
        convert_from_original(tmp_path, tmp_path / 'ours.pth')
    with pytest.raises(UserError, match='has scale n, not m'):
        convert_from_original(file, tmp_path / 'ours.pth', scale='m')
    (tmp_path / 'ours.pth').write_text('mine')
    with pytest.raises(UserError, match=r'ours\.pth exists and is not overwritten'):
        convert_from_original(file, tmp_path / 'ours.pth')
    assert (tmp_path / 'ours.pth').read_text() == 'mine'


def test_back_refuses_what_is_not_ours(tmp_path, theirs, file):
    other = tmp_path / 'other.pth'
    torch.save({'state_dict': {'backbone.conv1.weight': torch.zeros(1)}}, other)
    with pytest.raises(UserError, match="is not a YOLO11 of this project: it contains 'backbone.conv1.weight'"):
        convert_to_original(other, tmp_path / 'back.pt')
    convert_from_original(file, tmp_path / 'ours.pth')
    content = loaded(tmp_path / 'ours.pth')
    del content['state_dict']['neck.downsample_layers.0.conv.weight']
    torch.save(content, other)
    with pytest.raises(UserError, match=r'missing model\.17\.conv\.weight'):
        convert_to_original(other, tmp_path / 'back.pt')
    assert not (tmp_path / 'back.pt').exists()
    convert_to_original(file, tmp_path / 'back.pt')  # the original's own file: its tensors alone
    back = loaded(tmp_path / 'back.pt')
    expected = read_original(file).state_dict
    assert back.keys() == expected.keys()
    assert [k for k, v in back.items() if not torch.equal(v, expected[k].to(v.dtype))] == []


class Runs:
    """Pickled, it asks for a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def marks(path):
    return f'touch {path}'


ATTACKS = {
    'os.system': lambda mark: Runs(os.system, marks(mark)),
    'eval': lambda mark: Runs(eval, f'__import__("os").system("{marks(mark)}")'),
    'exec': lambda mark: Runs(exec, f'import os; os.system("{marks(mark)}")'),
    'import': lambda mark: Runs(__import__, 'antigravity'),
    'subprocess': lambda mark: Runs(__import__('subprocess').check_output, ['touch', str(mark)]),
    'runpy': lambda mark: Runs(__import__('runpy').run_path, str(mark)),
    'torch loads': lambda mark: Runs(torch.load, str(mark)),
    'torch runs': lambda mark: Runs(torch.hub.load, str(mark), 'x'),
    'a foreign function': lambda mark: Runs(pytest.main, [str(mark)]),
}


@pytest.mark.parametrize('place', ['model', 'ema', 'train_args', 'in the model'])
@pytest.mark.parametrize('attack', ATTACKS)
def test_nothing_in_a_file_is_run(attack, place, tmp_path, theirs):
    mark = tmp_path / 'mark'
    payload = ATTACKS[attack](mark)
    path = tmp_path / 'original.pt'
    if place == 'in the model':
        save_original(path, theirs, [payload, 'bee', 'cat'])
    elif place == 'model':
        torch.save({'model': payload}, path)
    else:
        save_original(path, theirs, NAMES, **{place: payload})
    with pytest.raises(UserError, match=f'{path} is refused: '):
        convert_from_original(path, tmp_path / 'ours.pth')
    assert [p.name for p in tmp_path.iterdir()] == ['original.pt']


def test_what_is_refused_is_named(tmp_path):
    torch.save({'model': Runs(os.system, 'true')}, tmp_path / 'a.pt')
    with pytest.raises(UserError, match=f'it names {os.name}.system, which no checkpoint needs'):
        read_original(tmp_path / 'a.pt')
    torch.save({'model': Runs(pytest.main, ['x'])}, tmp_path / 'b.pt')
    with pytest.raises(UserError, match=r'refused: it calls _pytest\.config\.main, which no checkpoint needs'):
        read_original(tmp_path / 'b.pt')


def test_a_tree_without_end_is_refused(tmp_path):
    with Package('ultralytics.nn.tasks.DetectionModel') as classes:
        module = classes['DetectionModel']()
        for _ in range(60):  # two branches to the same child, sixty times over: 2^60 layers
            parent = classes['DetectionModel']()
            parent.a = parent.b = module
            module = parent
        torch.save({'model': module}, tmp_path / 'deep.pt')
    with pytest.raises(UserError, match='it has more than 20000 layers and tensors'):
        read_original(tmp_path / 'deep.pt')


@pytest.mark.slow
@pytest.mark.parametrize('stride', [40, pytest.param(1, marks=pytest.mark.long)])
def test_damaged_files(tmp_path, theirs, run, stride):
    """Cut at every kilobyte, bytes flipped, pickles damaged: nothing is run or written, and nothing hangs."""
    save_original(tmp_path / 'original.pt', theirs, NAMES)
    safetensors.torch.save_file(theirs, tmp_path / 'original.safetensors')
    done = run(ROOT / 'tests/fuzz_conversion.py', tmp_path, stride, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    ends = dict(line.strip().split(' ', 1)[::-1] for line in done.stdout.splitlines()[-20:])
    assert int(ends['in all']) > 7000 // stride, done.stdout
    assert int(ends['truncated: refused']) > 5000 // stride, done.stdout
    assert int(ends['pickle damaged under a right checksum: refused']) > 300 // stride, done.stdout
    assert not [end for end in ends if 'without its name' in end], done.stdout


@pytest.mark.slow
def test_from_a_file_to_pictures(tmp_path, theirs, call, digits):
    """The commands that the tool prints work as they are printed, and pictures have the names of the classes."""
    save_original(tmp_path / 'yolo.pt', theirs, NAMES)
    done = call('tools/convert_ultralytics.py', tmp_path / 'yolo.pt', tmp_path / 'yolo.pth')
    assert done.returncode == 0, done.stderr
    assert "YOLO11-n, 2,590,409 parameters, 3 classes (ape, bee, cat), from 'model'" in done.stdout
    commands = dict(re.findall(r'^(.*?): +python (.*)', done.stdout, re.M))
    command = commands['look at it'].replace('IMAGE', str(digits / 'val/000000.jpg')).split()
    done = call(*command, '--out-dir', tmp_path / 'out', '--score-thr', '0')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out/vis/000000.jpg').exists()

    command = commands['test it'].split()
    data = [f'test_dataloader.dataset.data_root={digits}', 'test_dataloader.dataset.data_prefix.img=val/']
    data.append('test_dataloader.dataset.ann_file=annotations/val.json')
    done = call(*command, *data, '--work-dir', tmp_path)
    assert done.returncode == 1  # ten digits are not three animals
    assert 'num_classes=3, but the data set' in done.stderr

    done = call('tools/convert_ultralytics.py', '--reverse', tmp_path / 'yolo.pth', tmp_path / 'back.pt')
    assert done.returncode == 0, done.stderr
    assert "model = DetectionModel('yolo11n.yaml', nc=3)" in done.stdout
    for arguments, message in (
        ((tmp_path / 'yolo.pt', tmp_path / 'yolo.pth'), 'yolo.pth exists and is not overwritten'),
        ((tmp_path / 'yolo.pt', tmp_path / 'm.pth', '--scale', 'm'), 'has scale n, not m'),
        (('--reverse', tmp_path / 'yolo.pth', tmp_path / 'b.pt', '--classes', 'a'), 'omit them with --reverse'),
        ((tmp_path / 'none.pt', tmp_path / 'm.pth'), 'no checkpoint at'),
    ):
        done = call('tools/convert_ultralytics.py', *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('config', 'line'),
    [
        ('obb/yolo11n_digits.py', "model = OBBModel('yolo11n-obb.yaml', nc=10)"),
        ('pose/yolo11n_coco.py', "model = PoseModel('yolo11n-pose.yaml', nc=1)"),
        ('segment/yolo11n_dynconv_digits.py', 'the original needs a patch with DynamicConv'),
    ],
)
def test_the_way_back_says_how_the_original_loads_a_task(call, alike, tmp_path, config, line):
    _, checkpoint = alike(config)
    done = call('tools/convert_ultralytics.py', '--reverse', checkpoint, tmp_path / 'back.pt')
    assert done.returncode == 0, done.stderr
    assert line in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(('scale', 'layers'), [('n', ['1.conv', '2.conv', '3.conv', '4']), ('s', ['4'])])
def test_fine_tuning_with_other_classes(scale, layers, tmp_path, digits):
    """What depends on the class count starts anew, all else is taken, also into the average; and the log says so."""
    variant = variant_of(scale, classes=80)
    torch.save(random_state_dict(variant), tmp_path / 'eighty.pt')
    convert_from_original(tmp_path / 'eighty.pt', tmp_path / 'eighty.pth')
    cfg = Config.fromfile(ROOT / f'configs/yolo11{scale}_coco.py')
    cfg.load_from, cfg.work_dir, cfg.launcher = str(tmp_path / 'eighty.pth'), str(tmp_path / 'run'), 'none'
    cfg.model.bbox_head.head_module.num_classes = 10
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'val'), (cfg.test_dataloader, 'val')):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
        prefix = dict(img=f'{split}/')
        loader.dataset.update(data_root=str(digits), ann_file=f'annotations/{split}.json', data_prefix=prefix)
    cfg.train_cfg.update(max_epochs=0)
    cfg.visualizer.name = cfg.experiment_name = f'tuning-{scale}'
    runner = build_runner(cfg, train=True)
    runner.train()
    taken = loaded(tmp_path / 'eighty.pth')['state_dict']
    average = next(h for h in runner.hooks if hasattr(h, 'ema_model')).ema_model.module.state_dict()
    anew = set()
    for name, tensor in runner.model.state_dict().items():
        assert torch.equal(tensor, average[name]), name
        if taken[name].shape != tensor.shape:
            anew.add(name)
        else:
            assert torch.equal(tensor, taken[name]), name
    owners = {name.partition('cls_preds.')[2][2:].removesuffix('.weight').removesuffix('.bias') for name in anew}
    assert {owner for owner in owners if '.bn' not in owner} == set(layers)
    bias = runner.model.bbox_head.head_module.cls_preds[0][4].bias
    assert bias.tolist() == pytest.approx([math.log(5 / 10 / 80**2)] * 10)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    total = len(taken)
    assert f'taken: {total - len(anew)} of {total} tensors' in log.read_text()
    assert 'layers of the class branch only, because the classes differ' in log.read_text()
