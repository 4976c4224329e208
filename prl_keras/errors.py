"""The one exception a user is meant to read. Imports nothing; anyone may import it."""


class InputError(ValueError):
    """Bad input from outside. The message says what is wrong, where, and what to do.

    `main.py` prints it as one line and exits with code 2.
    """
