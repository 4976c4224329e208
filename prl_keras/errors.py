"""The one exception a user is meant to read. Anyone may import it."""

from prl_keras.terminal import as_started


class InputError(ValueError):
    """Bad input from outside. The message says what is wrong, where, and what to do.

    `main.py` prints it as one line and exits with code 2. told: the other workers of a shared training know it.
    """

    told = False

    def __str__(self) -> str:
        return as_started(super().__str__())
