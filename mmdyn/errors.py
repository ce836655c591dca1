"""The error that a user can correct: its message names what is invalid, the value, and what to set.

The command-line tools print it without a traceback and exit with 1.
"""


class UserError(Exception):
    """Something outside the code is wrong, and the message says what to do about it."""
