"""The environment report for bug reports: versions, the provider of MMCV's ops, CPU features, devices."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = (
    'torch',
    'torchvision',
    'timm',
    'mmengine',
    'mmcv',
    'mmcv-lite',
    'mmdet',
    'mmyolo',
    'mmyolo-open',
    'numpy',
    'opencv-python',
    'setuptools',
)
CPU_FEATURES = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'bf16', 'asimd')


def cpu_flags() -> set[str]:
    """Feature flags of the CPU as the kernel names them; empty if it does not list them."""
    info = Path('/proc/cpuinfo')
    if not info.exists():
        return set()
    lines = info.read_text().splitlines()
    return next((set(line.split(':')[1].split()) for line in lines if line.startswith(('flags', 'Features'))), set())


def processor() -> str:
    """The kind of GPU that a process uses, or of CPU with its features, on which results may depend."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.processor())
    return ' '.join([name, *(flag for flag in CPU_FEATURES if flag in cpu_flags())])


def package_versions() -> dict[str, str]:
    """Installed versions of the relevant packages."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = 'not installed'
    return versions


def ops_provider() -> str:
    """The provider of ``mmcv._ext``: MMCV's own extension, or torchvision through mmdyn."""
    import mmcv._ext as ext

    stand_in = Path(__file__).with_name('ext_ops.py')
    if Path(ext.__file__) != stand_in:
        return f'compiled MMCV ({ext.__file__})'
    return 'torchvision, through mmdyn (no compiled mmcv._ext)'


def environment() -> dict[str, str]:
    """Everything a bug report needs, as name and value."""
    import torch

    from mmdyn.version import __version__

    from .optin import optin_file

    features = ' '.join(flag for flag in CPU_FEATURES if flag in cpu_flags())
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        'mmdyn': __version__,
        'python': f'{platform.python_version()} on {platform.platform()}',
        **package_versions(),
        'mmcv ops': ops_provider(),
        'opt-in': str(optin_file()) if optin_file().exists() else 'off',
        'CPU': f'{os.cpu_count()} cores, {torch.get_num_threads()} threads, {features}',
        'GPU': ', '.join(gpus) or 'none',
    }


def report() -> str:
    """The environment as text, one line per entry."""
    return '\n'.join(f'{name:<14} {value}' for name, value in environment().items())
