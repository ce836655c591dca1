"""The host in spawned processes: data-loader workers started with spawn import ``mmdyn`` before anything else.

Such a worker unpickles its data set, and with it imports mmdet or mmyolo, which need ``mmcv._ext``.
``multiprocessing`` hands every process the configuration of its parent, unpickled before the rest; a token in there
brings the import along.
"""

from multiprocessing import process


class _Token:
    """Unpickling this imports ``mmdyn``."""

    def __reduce__(self):
        return _arrive, ()


def _arrive() -> _Token:
    return _Token()


def follow_into_children() -> None:
    """Have every process started from here on import ``mmdyn`` first."""
    process.current_process()._config['mmdyn'] = _Token()  # type: ignore[attr-defined]  # the only way in
