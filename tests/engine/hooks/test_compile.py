"""The config key ``compile``: the networks are compiled, and the run is the same one."""

import pytest

from conftest import ROOT
from mmdyn.running.config_file import load_config
from mmdyn.running.launch import build_runner


def trained(digits, work, **options):
    """The weights after one epoch on a few digits."""
    for split in ('train', 'val'):
        loader = dict(num_workers=0, persistent_workers=False, batch_size=8, **{'dataset.data_root': str(digits)})
        options |= {f'{split}_dataloader.{key}': value for key, value in loader.items()}
    options |= {'train_cfg.max_epochs': 1, 'randomness.seed': 0, 'val_cfg': None, 'val_dataloader': None}
    options |= {'val_evaluator': None, 'visualizer.name': work.name}
    runner = build_runner(
        load_config(str(ROOT / 'configs/yolo11n_dynconv_digits.py'), options, str(work), 'none'), train=True
    )
    runner.train()
    return runner.model


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor')  # Dynamo's own
def test_a_compiled_run_trains_as_another(digits, tmp_path):
    plain = trained(digits, tmp_path / 'plain').state_dict()
    model = trained(digits, tmp_path / 'compiled', compile=dict(backend='eager'))
    assert model.backbone._compiled_call_impl is not None
    assert model.bbox_head.head_module._compiled_call_impl is not None
    assert list(model.state_dict()) == list(plain)
    for name, value in model.state_dict().items():
        away = (value - plain[name]).double().norm() / plain[name].double().norm().clamp(min=1)
        assert away < 1e-2, (name, away)  # biases warm up at a rate of 0.1
