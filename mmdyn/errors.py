"""The error for what a user can mend: a message that names the thing, the value and the cure.

The command-line tools print it without a traceback and exit with 1.
"""


class UserError(Exception):
    """Something outside the code is wrong, and the message says what to do about it."""
