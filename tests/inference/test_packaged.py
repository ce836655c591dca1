"""The detectors that come with the package: they detect, and a damaged file is not used."""

import shutil

import pytest
import torch
from mmdet.visualization import DetLocalVisualizer

import mmdyn
from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.inference import evaluate, packaged
from mmdyn.running import load_config

NAMES = ('yolo11n_digits', 'yolo11n_dynconv_digits')


@pytest.mark.parametrize('name', NAMES)
def test_average_precision(digits, tmp_path, name):
    DetLocalVisualizer._instance_dict.clear()  # MMEngine keeps visualizers by name, and warns of a second of a name
    config, checkpoint = packaged.packaged(name)
    cfg = load_config(config, work_dir=str(tmp_path))
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.data_root = str(digits)
    assert evaluate(cfg, checkpoint)['coco/bbox_mAP_50'] > 0.5  # 0.6 on all 200 images


def test_short_name_is_the_dynamic_one(digits):
    model, same = mmdyn.load_model('digits'), mmdyn.load_model('yolo11n_dynconv_digits', packaged.packaged('digits')[1])
    assert model.names == [str(digit) for digit in range(10)]
    image = sorted((digits / 'val').iterdir())[0]
    found, expected = (each(image).pred_instances for each in (model, same))
    assert len(found) > 1
    assert torch.equal(found.bboxes, expected.bboxes)
    assert 0.25 < found.scores.min() < 0.5  # the default threshold, also in what follows
    assert len(model(image, score=0.01).pred_instances) > len(found)


def test_the_file_alone_is_the_same_detector(digits):
    image = sorted((digits / 'val').iterdir())[0]
    for name in ('digits', 'yolo11n_digits'):
        by_name, by_file = mmdyn.load_model(name), mmdyn.load_model(packaged.packaged(name)[1])
        found, expected = (each(image).pred_instances for each in (by_file, by_name))
        assert torch.equal(found.bboxes, expected.bboxes)


def test_other_names_need_a_checkpoint():
    assert packaged.packaged('yolo11n_coco') is None
    with pytest.raises(UserError, match=r"yolo11n_coco needs a checkpoint: .*load_model\('digits'\)"):
        mmdyn.load_model('yolo11n_coco')


def test_a_damaged_file_is_not_used(tmp_path, monkeypatch):
    folder = shutil.copytree(packaged.FOLDER, tmp_path / 'weights')
    monkeypatch.setattr(packaged, 'FOLDER', folder)
    file = folder / 'yolo11n_dynconv_digits.pth'
    with file.open('rb+') as damaged:
        damaged.seek(5000)
        damaged.write(b'0')
    with pytest.raises(UserError, match='missing or damaged: install mmdyn again'):
        mmdyn.load_model('digits')
    file.unlink()
    with pytest.raises(UserError, match='missing or damaged'):
        mmdyn.load_model('digits')


def test_packing_halves_a_checkpoint(tmp_path, monkeypatch):
    _, source = packaged.packaged('digits')
    written = packaged.pack(source, 'yolo11n_dynconv-bn_digits', tmp_path)
    content = torch.load(written, weights_only=True)
    assert {v.dtype for v in content['state_dict'].values()} == {torch.float16, torch.int64}
    assert content['meta']['dataset_meta']['classes'] == tuple('0123456789')
    packaged.pack(source, 'yolo11n_dynconv_digits', tmp_path)
    lines = (tmp_path / 'SHA256SUMS').read_text().splitlines()
    assert [line.split()[1] for line in lines] == ['yolo11n_dynconv-bn_digits.pth', 'yolo11n_dynconv_digits.pth']


def test_demo(call, tmp_path):
    done = call('demo/image_demo.py', '--demo', '--out-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'vis').glob('*.jpg'))) == len(list((tmp_path / 'preds').glob('*.json'))) == 4
    assert '"labels": [' in (tmp_path / 'preds/000000.json').read_text()
    assert 'UserWarning' not in done.stderr
    for arguments, message in (
        ((tmp_path, '--demo'), 'makes its own images: omit'),
        ((tmp_path,), 'or digits, and stands after the images; got nothing'),
        ((), 'set an image, a folder'),
    ):
        done = call('demo/image_demo.py', *arguments)
        assert done.returncode == 1
        assert message in done.stderr


def test_the_sums_are_those_of_sha256sum():
    names = [line.split()[1] for line in packaged.SUMS.read_text().splitlines()]
    assert names == sorted(f'{name}.pth' for name in NAMES)
    assert packaged.FOLDER == ROOT / 'mmdyn/weights'
