"""The command line: options -> command. The only place that parses arguments and turns errors into exit codes.

Each command is imported when it is called, so that `--help` never waits for TensorFlow.
"""

import contextlib
import errno
import io
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from prl_keras import config
from prl_keras.errors import InputError
from prl_keras.interruption import Stopped, terminating
from prl_keras.records import is_text

# name -> (options, module, function)
COMMANDS = {
    "pretrain": (config.Pretrain, "prl_keras.commands.pretrain", "run"),
    "finetune": (config.Finetune, "prl_keras.commands.finetune", "run"),
    "baseline": (config.Baseline, "prl_keras.commands.finetune", "run_baseline"),
    "tune": (config.Tune, "tuning.command", "run"),
    "reproduce": (config.Reproduce, "prl_keras.commands.reproduce", "run"),
    "evaluate": (config.Evaluate, "prl_keras.commands.evaluate", "run"),
    "visualize": (config.Visualize, "prl_keras.commands.visualize", "run"),
    "predict": (config.Predict, "prl_keras.commands.predict", "run"),
    "runs": (config.Runs, "prl_keras.commands.runs", "run"),
    "data": (config.Data, "prl_keras.commands.data", "run"),
}

# A full, limited or write-protected disk is the user's to repair, not an error of the program.
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}

_DESCRIPTION = """Prototypical representation learning in Keras 3.

Start with: python main.py pretrain --variant query

Then: python main.py finetune --encoder latest --head linear --freeze"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 2 for bad input, 130 for Ctrl-C, 128 + its number for a signal."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _check_text(arguments)
        options = parse(arguments or ["--help"])
        if options is not None:
            if unused := config.unused_but_given(options):
                raise InputError(f"{unused[0]} does nothing with {unused[1]}: leave it out")
            _, module, function = next(row for row in COMMANDS.values() if row[0] is type(options))
            with terminating():
                getattr(import_module(module), function)(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at exit
        return 141  # as a shell reports SIGPIPE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            print(f"error: {error.filename!s:.80}...: the name is too long; choose a shorter one", file=sys.stderr)
            return 2
        if error.errno not in _STORAGE:
            raise
        where = error.filename or "a file of the run"
        cure = "make it writable" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "make room"
        print(f"error: {where}: {error.strerror}; {cure}, then repeat the command", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: not enough memory; use fewer or smaller images, or a smaller network", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_how_to_continue(arguments, None)}", file=sys.stderr)
        return 130
    except Stopped as stop:
        where = f"stopped: {stop.where}; " if stop.where else "stopped; "
        print(f"\n{where}{_how_to_continue(arguments, stop.run)}", file=sys.stderr)
        return 128 + stop.signal
    return 0


def _check_text(arguments: Sequence[str]) -> None:
    """Raises InputError for what is no UTF-8: no record could hold it and no terminal show it."""
    for word in arguments:
        if not is_text(word):
            raise InputError(f"{word!a} is not UTF-8; rename the file or folder")


def _how_to_continue(arguments: Sequence[str], run: str | None) -> str:
    """The command that continues; a table continues by its own name, not by that of the run."""
    words = ["python", "main.py", *arguments]
    if arguments[:1] != ["reproduce"]:
        if run is None:
            return "nothing was kept: repeat the command"
        given = {word.partition("=")[0] for word in arguments}
        words += [] if {"--name", "--resume"} & given else ["--name", run]
        words += ["--resume"] if arguments[0] == "tune" and "--resume" not in given else []
    return f"to continue: {shlex.join(words)}"


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
    commands = {name: row[0] for name, row in COMMANDS.items()}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                commands, prog="main.py", description=_DESCRIPTION, args=arguments, use_underscores=False
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise InputError(_one_line(complaint.getvalue(), arguments)) from stop


def _one_line(box: str, arguments: Sequence[str]) -> str:
    """Tyro draws errors as a box; keep the text above its first rule and say where the help is."""
    text = []
    for line in box.splitlines()[1:]:
        line = line.strip("│ ")
        if line.startswith(("─", "╰")):
            break
        text.append(line)
    command = f"{arguments[0]} " if arguments and arguments[0] in COMMANDS else ""
    return f"{' '.join(text)} (see python main.py {command}--help)"
