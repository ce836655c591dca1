"""Errors that a user can correct are one line on stderr and exit code 1."""

import errno

import pytest

from mmdyn.errors import UserError
from mmdyn.running.messages import exit_code


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (UserError('set it'), 'error: set it\n'),
        (UserError('a\x1b[31mname'), 'error: a\\x1b[31mname\n'),
        (
            OSError(errno.ENOSPC, 'full', 'a.pth'),
            'error: the disk is full, writing a.pth. Earlier checkpoints are intact',
        ),
        (OSError(errno.EDQUOT, 'quota'), 'error: the disk is full, writing a file of the run'),
        (FileNotFoundError(errno.ENOENT, 'gone', '/gone.txt'), 'error: there is no /gone.txt (MMDYN_DEBUG=1'),
        (PermissionError(errno.EACCES, 'not allowed', '/x'), "error: [Errno 13] not allowed: '/x' (MMDYN_DEBUG=1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_line_and_exit_code_1(capsys, error, message):
    assert exit_code(failing(error)) == 1
    text = capsys.readouterr().err
    assert text.startswith(message)
    assert text.count('\n') == 1


def test_other_errors_are_bugs_and_are_raised(monkeypatch, capsys):
    assert exit_code(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 / 0)
    monkeypatch.setenv('MMDYN_DEBUG', '1')
    assert exit_code(failing(UserError('set it'))) == 1
    assert 'Traceback' in capsys.readouterr().err
