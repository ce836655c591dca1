"""The host stack in real processes: the stand-in of mmcv._ext and its reach, the safe loader, the opt-in."""

import platform
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmdyn.host import optin
from mmdyn.host.environment import cpu_flags, environment, ops_provider, report


def test_this_environment_uses_torchvision():
    assert ops_provider().startswith('torchvision')


def test_report_has_what_a_bug_report_needs():
    facts = environment()
    assert facts['torch'] == torch.__version__.split('+')[0] or facts['torch'] == torch.__version__
    for name in ('mmdyn', 'python', 'torchvision', 'mmcv-lite', 'mmdet', 'mmyolo', 'mmcv ops', 'CPU', 'GPU', 'opt-in'):
        assert facts[name]
        assert name in report()
    assert 'not installed' in facts['mmcv']


def test_cpu_flags_are_those_of_the_kernel():
    assert cpu_flags() == set() or {'fpu', 'fp'} & cpu_flags()


@pytest.mark.slow
def test_a_compiled_extension_is_left_untouched(run, tmp_path):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('compiled = True\n')
    code = 'from mmdyn.host.ext_finder import install; install(); import mmcv._ext as e; print(e.compiled, e.__file__)'
    light = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); ' + code.replace(
        'from mmdyn.host.ext_finder import install',
        "import importlib.util as u; s = u.spec_from_file_location('f', 'mmdyn/host/ext_finder.py'); "
        'f = u.module_from_spec(s); s.loader.exec_module(f); install = f.install',
    )
    done = run('-c', light)
    assert done.stdout.split() == ['True', str(package / '_ext.py')], done.stderr


@pytest.mark.slow
def test_workers_started_with_spawn_find_the_ops(run, tmp_path):
    # The worker's first import is mmdet, when it unpickles the data set; nothing there knows of mmdyn.
    script = tmp_path / 'main.py'
    script.write_text(
        textwrap.dedent("""
            def main():
                import mmdyn
                import torch
                from torch.utils.data import DataLoader
                from mmdet.models.losses import FocalLoss  # its module imports mmcv.ops

                class Data(list):
                    pass

                loader = DataLoader([FocalLoss()], 1, num_workers=1, collate_fn=list, multiprocessing_context='spawn')
                print([type(item).__name__ for batch in loader for item in batch])

            if __name__ == '__main__':
                main()
        """)
    )
    done = run(script)
    assert "['FocalLoss']" in done.stdout, done.stderr


@pytest.mark.processes
@pytest.mark.slow
def test_opt_in_serves_scripts_that_import_mmdet_first(tmp_path):
    venv = tmp_path / 'venv'  # sees this environment's packages, has a site-packages of its own
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(venv)], check=True)
    python = venv / 'bin' / 'python'
    site = next(venv.glob('lib/python*/site-packages'))
    here = next(p for p in sys.path if p.endswith('site-packages'))
    (site / 'packages.pth').write_text(here + '\n')

    def run(code):
        return subprocess.run([str(python), '-c', code], capture_output=True, text=True, timeout=120)

    before = run('import mmdet.models')
    assert before.returncode != 0
    assert '_ext' in before.stderr
    assert run('from mmdyn.host.optin import enable; enable()').returncode == 0
    assert (site / optin.NAME).exists()
    after = run(
        'import mmdet.models, torch; from mmcv.ops import nms; '
        'from mmengine.logging import HistoryBuffer as H; '
        'print(len(nms(torch.rand(3, 4), torch.rand(3), 1.0)[1]), H in torch.serialization.get_safe_globals())'
    )
    assert after.stdout.split() == ['3', 'True'], after.stderr
    assert run('import sys; print("torch" in sys.modules)').stdout.strip() == 'False'  # it costs a start nothing
    assert run('from mmdyn.host.optin import disable; disable()').returncode == 0
    assert '_ext' in run('import mmdet.models').stderr


def checkpoint_with_log(path):
    buffer = HistoryBuffer()
    for value in range(5):
        buffer.update(np.float64(value))
    optimizer = dict(param_groups=[dict(lr=np.float64(0.1), momentum=np.float32(0.9))])
    torch.save(dict(state_dict=dict(w=torch.ones(2)), message_hub=dict(log=buffer), optimizer=optimizer), path)


def test_mmengine_checkpoint_loads_with_the_safe_loader_on(tmp_path):
    checkpoint_with_log(tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert loaded['message_hub']['log'].mean() == 2.0
    assert loaded['optimizer']['param_groups'][0]['lr'] == 0.1


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'payload',
    [
        pytest.param(lambda p: Evil(__import__('os').system, f'touch {p}'), id='os.system'),
        pytest.param(lambda p: Evil(eval, f'open({str(p)!r}, "w")'), id='eval'),
        pytest.param(lambda p: Evil(getattr, HistoryBuffer, '__init__'), id='getattr-init'),
        pytest.param(lambda p: Evil(getattr, np.ndarray, 'tofile'), id='getattr-other-class'),
    ],
)
def test_a_malicious_checkpoint_does_not_run(tmp_path, payload):
    mark = tmp_path / 'executed'
    torch.save(dict(state_dict={}, extra=payload(mark)), tmp_path / 'evil.pth')
    with pytest.raises(Exception, match='Weights only load failed|not part of an MMEngine checkpoint'):
        torch.load(tmp_path / 'evil.pth', weights_only=True)
    assert not mark.exists()


@pytest.mark.slow
def test_command_prints_the_report(run):
    done = run('-m', 'mmdyn.host')
    assert done.returncode == 0, done.stderr
    assert 'mmcv ops       torchvision' in done.stdout


FAULTS = """
import resource, sys
import torch
from mmdyn.host import keep_freed_memory
told = sys.argv[1] == 'keep' and keep_freed_memory()
for _ in range(10):
    torch.ones(1 << 24)  # 64 MiB, and freed; the first ones may still grow the process
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(1 << 24)
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc can be told')
def test_freed_memory_is_used_again(run):
    faults = {}
    for mode in ('keep', 'plain'):
        told, count = run('-c', FAULTS, mode, env={'THP_MEM_ALLOC_ENABLE': '0'}).stdout.split()
        assert told == str(mode == 'keep')
        faults[mode] = int(count)
    assert faults['keep'] < 1000 < faults['plain']


def test_a_config_is_formatted_once():
    from mmengine.config import Config, config

    cfg = Config(dict(model=dict(type='A', depth=3), epochs=list(range(30))))
    before = config.FormatCode.cache_info()
    texts = {cfg.pretty_text for _ in range(3)}
    after = config.FormatCode.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    assert len(texts) == 1
    assert Config.fromstring(texts.pop(), '.py')._cfg_dict == cfg._cfg_dict


def test_the_report_says_whether_the_opt_in_is_on(tmp_path, monkeypatch):
    from mmdyn.host import optin
    from mmdyn.host.environment import environment

    file = tmp_path / 'optin.pth'
    monkeypatch.setattr(optin, 'optin_file', lambda: file)
    assert environment()['opt-in'] == 'off'
    file.write_text('')
    assert environment()['opt-in'] == str(file)
