"""Reading a checkpoint of the Ultralytics package, without that package and without running anything from the file.

Such a file is a pickle of objects. PyTorch's restricted unpickler rebuilds tensors and plain containers from it.
Classes of other packages become :class:`StandIn` objects that only keep their state. All other names in the pickle are
refused. Nothing named in the file is imported, and nothing in it is called.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmdyn.errors import UserError

NOTES = ('classes', 'kpt_shape')  # metadata of a .safetensors, as JSON
MAX_PARTS = 20_000  # layers and tensors; a YOLO11-x has about 2,000. Protects against malicious files
FIRST_LAYER = re.compile(r'(?:^|\.)(0\.conv\.(?:weight|bias))$')
PATH_TYPES = ('pathlib.PosixPath', 'pathlib.WindowsPath', 'pathlib._local.PosixPath', 'pathlib._local.WindowsPath')
# Whose values a pickle builds by a call: paths of the training arguments, the interpolation of a classifier's images.
VALUE_TYPES = (*PATH_TYPES, 'torchvision.transforms.functional.InterpolationMode')


class OriginalFile(NamedTuple):
    """The content of a checkpoint of the original.

    Example:
        >>> weights = {'model.0.conv.weight': torch.zeros(16, 3, 3, 3)}
        >>> torch.save(weights, folder / 'plain.pt')
        >>> read_original(folder / 'plain.pt').source
        'weights'
    """

    state_dict: dict[str, Tensor]  # keys from 'model.0.' on
    classes: tuple[str, ...] | None  # None if the file has no names
    head: str | None  # name of the class of the last layer; None in a plain state dict
    source: str  # which weights of the file were used
    keypoints: tuple[int, int] | None = None  # of a pose model: how many, and numbers of each; None if not stated


class CallRefusedError(Exception):
    """The pickle contains a call; the message names it."""


class StandIn:
    """Replaces an object of a class of another package: keeps its state, does nothing."""

    state: dict = {}

    def __init__(self, *args: Any) -> None:
        if args:
            raise CallRefusedError(f'it calls {type(self).__module__}.{type(self).__name__}')

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class ValueStandIn(StandIn):
    """Replaces a value of a type in :data:`VALUE_TYPES`, which a pickle builds by a call."""

    def __init__(self, *args: str) -> None:
        super().__init__()


def read_original(path: str | Path) -> OriginalFile:
    """Read a ``.pt`` of the Ultralytics package, a plain state dict, or a ``.safetensors`` file.

    Args:
        path: The file. The EMA weights of a training checkpoint are used.

    Raises:
        UserError: The file is missing or damaged, contains forbidden names, or contains no model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no checkpoint at {path.absolute()}')
    if path.suffix == '.safetensors':
        tensors, classes, keypoints = read_safetensors(path)
        return OriginalFile(_from_first_layer(tensors, path), classes, None, 'safetensors', keypoints)
    content = _read_zip(path)
    holders = {key: content.get(key) for key in ('ema', 'model', 'state_dict')} if isinstance(content, dict) else {}
    source, holder = next(((k, v) for k, v in holders.items() if isinstance(v, StandIn | dict)), ('weights', content))
    if isinstance(holder, StandIn):
        try:
            tensors, last = dict(_tensors(holder)), _last_layer(holder)
        except (AttributeError, TypeError, RecursionError) as e:
            raise UserError(f'{path}: the {type(holder).__name__} in it is not a model: {e}') from e
        names, keypoints = _names(holder.state.get('names')), _keypoints(last.state.get('kpt_shape') if last else None)
        head = type(last).__name__ if last else None
        return OriginalFile(_from_first_layer(tensors, path), names, head, source, keypoints)
    if not isinstance(holder, dict):
        raise UserError(f'{path} contains a {type(holder).__name__}, not a model or a state dict')
    return OriginalFile(_from_first_layer(holder, path), None, None, source)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None, tuple[int, int] | None]:
    """Tensors, class names and the shape of keypoints of a ``.safetensors`` file.

    Raises:
        UserError: The file is damaged.
    """
    try:
        with safe_open(path, framework='pt') as file:
            notes = {key: json.loads(text) for key, text in (file.metadata() or {}).items() if key in NOTES}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
            return tensors, _names(notes.get('classes')), _keypoints(notes.get('kpt_shape'))
    except (SafetensorError, OSError, ValueError) as e:
        raise UserError(f'{path} is damaged or not a .safetensors file: {e}') from e


def _read_zip(path: Path) -> Any:
    """Content of a ``torch.save`` file, with stand-ins for foreign classes."""
    try:
        _check_archive(path)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        refused = sorted(name for name in names if not _is_foreign_class(name))
        if refused:
            raise UserError(f'{path} is refused: it names {", ".join(refused)}, which no checkpoint needs')
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except CallRefusedError as e:
        raise UserError(f'{path} is refused: {e}, which no checkpoint needs') from e
    except UnpicklingError as e:
        match = re.search(r'error: \s*(.*)', str(e))  # PyTorch's message also contains advice for developers
        raise UserError(f'{path} is refused: {match[1] if match else "it is not a plain checkpoint"}') from e
    except Exception as e:  # a damaged file can raise any error
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise UserError(f'{path} is damaged or not a PyTorch checkpoint: {reason}') from e


def _check_archive(path: Path) -> None:
    """Check that the archive is uncompressed, as ``torch.save`` writes it, and that its checksums are correct."""
    if not zipfile.is_zipfile(path):
        raise ValueError('it was not written by torch.save, or it is truncated')
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unusual = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
        if unusual or sum(e.file_size for e in entries) > path.stat().st_size:
            raise ValueError('its archive is compressed or has overlapping entries, which torch.save never writes')
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f'the checksum of {damaged} in it is wrong')


def _is_foreign_class(name: str) -> bool:
    """Whether a class in the pickle may become a stand-in: layers of PyTorch, and classes of other packages."""
    package = name.split('.')[0]
    if package == 'torch':
        return name.startswith('torch.nn.')
    return name in PATH_TYPES or not (package in sys.stdlib_module_names or package.startswith('__builtin'))


def _stand_in(name: str) -> type[StandIn]:
    module, _, own_name = name.rpartition('.')
    return type(own_name, (ValueStandIn if name in VALUE_TYPES else StandIn,), {'__module__': module})


def _tensors(model: StandIn) -> Iterator[tuple[str, Tensor]]:
    """The state dict of a model built of stand-ins, in PyTorch's order."""
    visited = 0

    def below(module: StandIn, prefix: str) -> Iterator[tuple[str, Tensor]]:
        nonlocal visited
        visited += 1
        parameters, buffers = module.state.get('_parameters', {}), module.state.get('_buffers', {})
        visited += len(parameters) + len(buffers)
        if visited > MAX_PARTS:
            raise TypeError(f'it has more than {MAX_PARTS} layers and tensors')
        left_out = module.state.get('_non_persistent_buffers_set', ())
        own = {**parameters, **buffers}
        yield from ((prefix + k, v) for k, v in own.items() if isinstance(v, Tensor) and k not in left_out)
        for name, child in module.state.get('_modules', {}).items():
            if child is not None:
                yield from below(child, f'{prefix}{name}.')

    yield from below(model, '')


def _last_layer(model: StandIn) -> StandIn | None:
    layers = list(model.state.get('_modules', {}).get('model', StandIn()).state.get('_modules', {}).values())
    return layers[-1] if layers else None


def _keypoints(shape: Any) -> tuple[int, int] | None:
    """Two numbers, if they are that."""
    whole = isinstance(shape, list | tuple) and len(shape) == 2 and all(type(n) is int for n in shape)
    return (shape[0], shape[1]) if whole else None


def _names(names: Any) -> tuple[str, ...] | None:
    """Class names from a list, or from a dict by index."""
    if isinstance(names, dict):
        names = [names.get(i) for i in range(len(names))]
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) for n in names):
        return None
    return tuple(''.join(c for c in name if c.isprintable()) for name in names)


def _from_first_layer(tensors: dict, path: Path) -> dict[str, Tensor]:
    """The state dict with the keys of the original's model, without the prefix of any wrapper."""
    tensors = {k: v for k, v in tensors.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if 'backbone.stem.conv.weight' in tensors:
        raise UserError(f'{path} is a checkpoint of this project already. --reverse converts it to the original')
    wrappers = [k[: match.start(1)] for k in tensors if (match := FIRST_LAYER.search(k))]
    if not wrappers:
        raise UserError(f'{path} contains no YOLO model: none of its {len(tensors)} tensors is a first convolution')
    wrapper = min(wrappers, key=len)
    check_tensors(tensors, path)
    return {f'model.{k.removeprefix(wrapper)}': v for k, v in tensors.items() if k.startswith(wrapper)}


def check_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Check that all tensors are dense, with finite integers or floating-point numbers.

    Args:
        tensors: Tensors by name.
        path: File name for messages.

    Raises:
        UserError: A tensor is sparse, quantised, without data, larger than its storage, of another type, or not finite.
    """
    for name, tensor in tensors.items():
        counts = name.endswith('num_batches_tracked')
        kind = f'{tensor.dtype}, {tensor.layout}'.replace('torch.', '')
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != 'cpu':
            raise UserError(f'{path}: {name} is not a plain tensor with data ({kind} on {tensor.device.type})')
        if tensor.is_complex() or not (counts or tensor.is_floating_point()):
            raise UserError(f'{path}: {name} is of type {kind}, and a weight must be a floating-point number')
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(
                f'{path}: {name} has shape {tuple(tensor.shape)}, which is larger than its storage in the file'
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f'{path}: {name} has infinite or NaN values: its training diverged')
