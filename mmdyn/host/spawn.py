"""Host packages in spawned processes: data-loader workers started with spawn import ``mmdyn`` first.

Such a worker unpickles its data set and imports mmdet or mmyolo, which need ``mmcv._ext``. ``multiprocessing`` passes
the configuration of the parent to every process and unpickles it first; a token in it imports mmdyn.
"""

from multiprocessing import process


class _Token:
    """Unpickling this imports ``mmdyn``."""

    def __reduce__(self):
        return _arrive, ()


def _arrive() -> _Token:
    return _Token()


def follow_into_children() -> None:
    """Make every process that is started later import ``mmdyn`` first."""
    process.current_process()._config['mmdyn'] = _Token()  # type: ignore[attr-defined]  # there is no public API for this
