"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake in what the user gave: says what was expected, what came, and what to do.

    The command line prints it as one line and exits with code 2, without a traceback.
    """
