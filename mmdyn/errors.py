"""The error that a user can correct: its message names what is invalid, the value, and what to set.

The command-line tools print it without a traceback and exit with 1.
"""


class UserError(Exception):
    """An invalid input, file or setting; the message says how to correct it."""
