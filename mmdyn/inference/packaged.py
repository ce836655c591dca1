"""Packaged detectors: YOLO11-n with trained weights that come with mmdyn, for a first success without any download.

They were trained on the digits of :mod:`mmdyn.datasets.digits`; ``make weights`` trains them again.
"""

import hashlib
from pathlib import Path

import torch

from mmdyn.checkpoints import read_tensors
from mmdyn.errors import UserError
from mmdyn.files import replacing, write_text
from mmdyn.running.config_file import load_config
from mmdyn.version import __version__

FOLDER = Path(__file__).parents[1] / 'weights'
SUMS = FOLDER / 'SHA256SUMS'  # as sha256sum writes it
SHORT_NAMES = {'digits': 'yolo11n_dynconv_digits'}


def packaged(name: str) -> tuple[str, Path] | None:
    """The config and the checkpoint of a packaged detector.

    Args:
        name: Name of its config, or a short name: ``'digits'``, ``'yolo11n_digits'``.

    Returns:
        Name of the config and path of the checkpoint; None if no packaged detector has this name.

    Raises:
        UserError: The file is damaged.

    Example:
        >>> config, checkpoint = packaged('digits')
        >>> config, checkpoint.name
        ('yolo11n_dynconv_digits', 'yolo11n_dynconv_digits.pth')
    """
    config = SHORT_NAMES.get(name, name)
    wanted = _sums().get(f'{config}.pth')
    if wanted is None:
        return None
    path = FOLDER / f'{config}.pth'
    if not path.is_file() or _sum(path) != wanted:
        raise UserError(
            f'{path} is missing or damaged: install mmdyn again, or train it with `make weights` in a clone'
        )
    return config, path


def pack(checkpoint: str | Path, config: str, folder: str | Path = FOLDER) -> Path:
    """Write the weights of a checkpoint as float16, and note the hash of the file.

    Args:
        checkpoint: Checkpoint of a training.
        config: Name of its config, which becomes the name of the file.
        folder: Folder to write to.

    Returns:
        The written file.

    Raises:
        UserError: The checkpoint is missing or does not load safely.
    """
    tensors, classes = read_tensors(checkpoint)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    meta = dict(cfg=load_config(config).pretty_text, dataset_meta=dict(classes=classes), mmdyn_version=__version__)
    path, sums = Path(folder, f'{config}.pth'), Path(folder, SUMS.name)
    with replacing(path) as partial:
        torch.save(dict(state_dict=halves, meta=meta), partial)
    entries = {**_sums(sums), path.name: _sum(path)}
    write_text(sums, ''.join(f'{value}  {name}\n' for name, value in sorted(entries.items())))
    return path


def _sums(file: Path = SUMS) -> dict[str, str]:
    """Hashes by name of the file."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {name: value for value, name in (line.split() for line in lines)}


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
