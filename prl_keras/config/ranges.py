"""Numbers that no command can use, whatever else was chosen."""

from prl_keras.errors import InputError


def check_least(options: object, **least: float) -> None:
    """Raise InputError for an option below its least; one of several values is looked at each, None was not given."""
    for name, number in least.items():
        given = getattr(options, name)
        for value in given if isinstance(given, tuple) else (given,):
            if value is not None and not value >= number:  # as is nothing that is not a number
                raise InputError(f"--{name.replace('_', '-')} is {value}; expected at least {number}")


def check_seed(seed: int, end: int = 2**32) -> None:
    if not 0 <= seed < end:
        raise InputError(f"--seed is {seed}; expected a whole number from 0 to {end - 1}")
