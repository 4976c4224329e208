"""The command line: options -> command. The only place that parses arguments and turns errors into exit codes.

Each command is imported when it is called, so that `--help` never waits for TensorFlow.
"""

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import getdoc
from itertools import dropwhile, takewhile
from typing import Annotated, Any, Union

from prl_keras import config
from prl_keras.errors import InputError
from prl_keras.runs.interruption import Stopped, terminating
from prl_keras.runs.records import is_text
from prl_keras.terminal import WINDOWS, as_started, program, quoted, ready_streams

# name -> (options, module, function)
COMMANDS = {
    "pretrain": (config.Pretrain, "prl_keras.commands.pretrain", "run"),
    "finetune": (config.Finetune, "prl_keras.commands.finetune", "run"),
    "baseline": (config.Baseline, "prl_keras.commands.finetune", "run_baseline"),
    "tune": (config.Tune, "prl_keras.tuning.command", "run"),
    "reproduce": (config.Reproduce, "prl_keras.commands.reproduce", "run"),
    "evaluate": (config.Evaluate, "prl_keras.commands.evaluate", "run"),
    "report": (config.Report, "prl_keras.commands.report", "run"),
    "visualize": (config.Visualize, "prl_keras.commands.visualize", "run"),
    "teach": (config.Teach, "prl_keras.commands.teach", "run"),
    "predict": (config.Predict, "prl_keras.commands.predict", "run"),
    "embed": (config.Embed, "prl_keras.commands.embed", "run"),
    "export": (config.Export, "prl_keras.commands.export", "run"),
    "runs": (config.Runs, "prl_keras.commands.runs", "run"),
    "recipes": (config.Recipes, "prl_keras.commands.recipes", "run"),
    "data": (config.Data, "prl_keras.commands.data", "run"),
}

# What is the user's to repair, not an error of the program: a full, limited, failing or protected disk, files in use.
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give yourself access to it"),
    errno.EROFS: "make it writable",
    **dict.fromkeys((errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY), "close what has it open, or move it elsewhere"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), "move it elsewhere"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT), "see that its disk works"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
}
_IN_USE = (32, 33)  # Windows: another program has the file open, or has locked it

_DESCRIPTION = """Prototypical representation learning in Keras 3.

Start with: python main.py pretrain --variant query

Then: python main.py finetune --encoder latest --head linear --freeze"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code.

    0; 1: done, but it found what is to be seen to; 2 for bad input, 130 for Ctrl-C, 128 + its number for a signal. A
    worker of a shared training whose others are gone ends with 1, without coming back here.
    """
    code = None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    ready_streams()
    options = None
    try:
        _check_text(arguments)
        options = parse(arguments or ["--help"])
        if options is not None:
            _check_some(options, arguments)
            config.check_unused(options)
            _, module, function = next(row for row in COMMANDS.values() if row[0] is type(options))
            with terminating():
                code = getattr(import_module(module), function)(options)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if getattr(options, "strategy", "none") == "multiworker" and not error.told:
            _tell_the_others(error)
        return 2
    except OSError as error:
        if _reader_gone(error):
            return 141  # as a shell reports SIGPIPE
        if (line := _what_to_do(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: not enough memory; use fewer or smaller images, or a smaller batch", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_how_to_continue(arguments, None)}", file=sys.stderr)
        return 130
    except Stopped as stop:
        where = f"stopped: {stop.where}; " if stop.where else "stopped; "
        print(f"\n{where}{_how_to_continue(arguments, stop.run)}", file=sys.stderr)
        return 128 + stop.signal
    return code or 0


def _reader_gone(error: OSError) -> bool:
    """`| head` has seen enough. Windows calls that an invalid argument."""
    if not isinstance(error, BrokenPipeError) and not (WINDOWS and error.errno == errno.EINVAL and not error.filename):
        return False
    with contextlib.suppress(OSError, ValueError):  # for what Python still flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _what_to_do(error: OSError) -> str | None:
    """One line, if it is not for the programmer."""
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.filename!s:.80}...: the name is too long; choose a shorter one"
    in_use = getattr(error, "winerror", None) in _IN_USE
    if not in_use and error.errno not in _CURES:
        return None
    cure = _CURES[errno.EBUSY] if in_use else _CURES[error.errno]
    return f"{error.filename or 'a file of the run'}: {error.strerror}; {cure}, then repeat the command"


def _tell_the_others(error: InputError) -> None:
    """The workers of the training that this one cannot take part in would wait for it."""
    from prl_keras.company import excuse
    from prl_keras.strategies import cluster

    with contextlib.suppress(InputError):  # TF_CONFIG may be what is wrong
        if (found := cluster()) is not None:
            excuse(found, error)


def _check_text(arguments: Sequence[str]) -> None:
    """Raises InputError for what is no UTF-8: no record could hold it and no terminal show it."""
    for word in arguments:
        if not is_text(word):
            raise InputError(f"{word!a} is not UTF-8; rename the file or folder")


def _check_some(options: object, arguments: Sequence[str]) -> None:
    """Raises InputError for an option of several values that was given none: it would be as if it were not there."""
    given = {word.replace("_", "-") for word in arguments}
    for name, value in vars(options).items():
        if value == () and (flag := f"--{name.replace('_', '-')}") in given:
            raise InputError(f"{flag} needs a value: give it one or several, or leave it out")


def _how_to_continue(arguments: Sequence[str], run: str | None) -> str:
    """The command that continues; a table continues by its own name, not by that of the run."""
    words = list(arguments)
    given = {word.partition("=")[0] for word in arguments}
    if arguments[:1] != ["reproduce"] and "--out" not in given:
        if run is None:
            return "nothing was kept: repeat the command"
        words += [] if {"--name", "--resume"} & given else ["--name", run]
        words += ["--resume"] if arguments[0] == "tune" and "--resume" not in given else []
    return f"to continue: {program()} {quoted(words)}"


def parse(arguments: Sequence[str]) -> object | None:
    """The options dataclass of the command; None after --help or --version was printed.

    Raises:
        InputError: the arguments are wrong; one line.
    """
    import tyro

    if list(arguments) == ["--version"]:
        from prl_keras import __version__

        print(f"prl-keras {__version__}")
        return None
    commands = [
        Annotated[Any, tyro.conf.subcommand(name, constructor=row[0], description=as_started(getdoc(row[0])))]
        for name, row in COMMANDS.items()
    ]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                # a help of the whole: tyro else looks for one in the source of the module typing, half of the time
                Annotated[Union[tuple(commands)], tyro.conf.arg(help="each has a --help of its own")],  # noqa: UP007
                prog=program(),
                description=as_started(_DESCRIPTION),
                args=arguments,
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise InputError(_one_line(complaint.getvalue(), arguments)) from stop


_CLEARER = {  # what Python says of a word -> what a reader needs
    r"no type matching .* - <class '\w+'>: ": "",  # the last of several types is the one that is meant
    r"invalid literal for int\(\) with base 10: ('.*')": r"\1 is no whole number",
    r"could not convert string to float: ('.*')": r"\1 is no number",
}


def _one_line(box: str, arguments: Sequence[str]) -> str:
    """Tyro draws errors as a box, where it can; keep the text above its first rule and say where the help is."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]  # without the title
    text = takewhile(lambda line: not _is_rule(line), dropwhile(_is_rule, lines))
    command = f"{arguments[0]} " if arguments and arguments[0] in COMMANDS else ""
    said = " ".join(text)
    for what, better in _CLEARER.items():
        said = re.sub(what, better, said)
    return f"{said} (see {program()} {command}--help)"


def _is_rule(line: str) -> bool:
    return len(line) > 2 and set(line) <= set("─-╰╯")
