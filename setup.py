"""Packaging. Reads the version and the requirements as text: nothing is imported that is not installed yet."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list[str]:
    lines = (HERE / name).read_text().splitlines()
    return [line.split('#')[0].strip() for line in lines if line.split('#')[0].strip()]


setup(  # what can be said without code is in pyproject.toml
    version=re.search(r"__version__ = '(.+)'", (HERE / 'mmdyn/version.py').read_text())[1],
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    scripts=['tools/mmdyn'],  # imports no package, so that --help answers at once
    packages=find_packages(include=('mmdyn', 'mmdyn.*')),
    # mmdyn/.mim links to configs, tools, demo and the model index, where `mim` looks for them.
    package_data={
        'mmdyn': [
            *(
                'py.typed',
                'ablation/*.jinja',
                'analysis/*.jinja',
                'reports/*.jinja',
                'weights/*',
                '.mim/model-index.yml',
            ),
            *('.mim/**/*.py', '.mim/**/*.sh', '.mim/**/*.yml'),
        ]
    },
    install_requires=requirements('requirements.txt'),
    extras_require={
        name: requirements(f'requirements/{name}.txt')
        for name in ('classify', 'deploy', 'mobile', 'track', 'dev', 'docs')
    },
)
