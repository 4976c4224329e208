"""What differs on Windows, played on Linux: files that are open, names, encodings, signals, pipes, words to paste."""

import ast
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import windows
from faults import save_checkpoint
from PIL import Image
from test_fuzz import small_model

from prl_keras import cli, files, startup
from prl_keras import terminal as terminal_module
from prl_keras.cli import main
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run, locks
from prl_keras.runs.interruption import Stopped, noted, terminating
from prl_keras.runs.locks import locked, working_on
from prl_keras.screen.console import Terminal
from prl_keras.terminal import ready_streams
from prl_keras.training.checkpoint import restore_checkpoint

ROOT = Path(__file__).parents[1]
TRAINING = ["--epochs", "1", "--batch-size", "8", "--runs-dir", "runs"]
COMMANDS = [
    ["pretrain", "--dataset", "tiere", *TRAINING, "--name", "pre"],
    ["finetune", "--encoder", "pre", *TRAINING, "--name", "fine"],
    ["evaluate", "fine", "--runs-dir", "runs"],
    ["predict", "fine", "tiere/test/猫/0.png", "--runs-dir", "runs"],
    ["predict", "fine", "tiere", "--runs-dir", "runs", "--out", "answers.csv"],
    ["embed", "fine", "tiere", "--runs-dir", "runs", "--out", "vectors.npy"],
    ["visualize", "fine", "--runs-dir", "runs"],
    ["runs", "--runs-dir", "runs"],
    ["data", "verify", "--dataset", "tiere"],
    ["pretrain", "--help"],
    ["pretrain", "--dataset", "猫"],
]
LONGER = [
    ["visualize", "fine", "--runs-dir", "runs"],  # again: what is there is replaced
    ["tune", "--encoder", "pre", "--max-trials", "2", "--epochs", "1", "--name", "search", "--runs-dir", "runs"],
    ["reproduce", "--dataset", "tiere", "--seeds", "1", "--rows", "mlp", "pca", *TRAINING],
    ["reproduce", "--dataset", "tiere", "--seeds", "1", "--rows", "mlp", "pca", *TRAINING],
]


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 14), ("test", 4)):
        for label, name in enumerate(("猫", "a b")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 128, (16, 16, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{number}.png")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], LONGER])
def test_every_command_works_as_windows_would_have_it_in_cp1252(tmp_path: Path, more: list[list[str]]) -> None:
    write_pictures(tmp_path / "tiere")
    commands = COMMANDS + more
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", windows.__file__],
        input="".join(f"{json.dumps(words)}\n" for words in commands).encode(),
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    output, error = done.stdout.decode("cp1252"), done.stderr.decode("cp1252")
    assert done.returncode == 0, error[-3000:]
    codes = [2 if words[-1] == "猫" else 0 for words in commands]
    assert output.splitlines()[-1].split() == ["CODES", *map(str, codes)], error[-3000:]
    assert "Traceback" not in error
    assert "\\u732b" in output, "the class in data's and predict's tables"
    assert "error: unknown data set '\\u732b'" in error
    left = [path.name for path in tmp_path.rglob(".*")]
    assert set(left) <= {".lock"}, "nothing of a write is left"


def test_the_play_is_as_strict_as_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test before relies on."""
    file, other = tmp_path / "file", tmp_path / "other"
    other.write_text("x", encoding="utf-8")
    with file.open("w", encoding="utf-8"):
        for path in (file, tmp_path):
            with pytest.raises(PermissionError):
                windows.refuse_open(path)
        with pytest.raises(PermissionError):
            windows.check_replace(other, file)
        with pytest.raises(FileExistsError):
            windows.check_rename(other, other)
    windows.refuse_open(file)
    mapped = np.memmap(other, mode="r", dtype=np.uint8)
    with pytest.raises(PermissionError):
        windows.refuse_open(other)
    del mapped
    with file.open("rb") as reading, pytest.raises(OSError, match="Bad file descriptor"):
        windows.check_sync(reading.fileno())


@pytest.fixture
def strict_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", windows.guarded(os.fsync, windows.check_sync))
    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, windows.guarded(getattr(os, name), windows.refuse_open))
    monkeypatch.setattr(os, "rename", windows.guarded(os.rename, windows.check_rename))
    monkeypatch.setattr(os, "replace", windows.guarded(os.replace, windows.check_replace))
    monkeypatch.setattr("shutil._use_fd_functions", False)
    monkeypatch.delattr(os, "O_NOFOLLOW")


@pytest.mark.usefixtures("strict_files")
def test_a_run_is_made_locked_written_and_removed_where_open_files_cannot_be_touched(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    with working_on(run):
        write_json(run.path / "result.json", {"value": 1})
        write_json(run.path / "result.json", {"value": 2})
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "result.json"]
    assert run.result == {"value": 2}
    failed = create_run(tmp_path, "failed", {})
    with pytest.raises(RuntimeError, match="stop"), working_on(failed):
        raise RuntimeError("stop")
    assert not failed.path.exists(), "else the name would be taken by nothing"


@pytest.mark.usefixtures("strict_files")
def test_a_checkpoint_that_is_damaged_a_second_time_is_set_aside_too(tmp_path: Path) -> None:
    run, model = small_model(tmp_path)
    for _ in range(2):
        save_checkpoint(model, run, 7).write_bytes(b"")
        with pytest.warns(UserWarning, match="is damaged"), pytest.raises(InputError, match="all checkpoints"):
            restore_checkpoint(model, run)
    assert [path.name for path in (run.path / "checkpoint").iterdir()] == ["epoch-00007.damaged"]


@pytest.mark.usefixtures("strict_files")
def test_a_lock_that_is_a_link_is_refused_where_the_system_would_follow_it(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    (run.path / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match="is a link"), locked(run):
        pass


def test_who_holds_a_lock_is_not_written_into_the_locked_file(tmp_path: Path) -> None:
    """Windows lets nobody read it; and a link in the place of the note is replaced, not followed."""
    run = create_run(tmp_path, "run", {})
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    (run.path / ".owner").symlink_to(tmp_path / "mine.txt")
    with locked(run):
        assert (run.path / ".lock").read_bytes() == b""
        assert f"process {os.getpid()} on" in (run.path / ".owner").read_text(encoding="utf-8")
        with pytest.raises(InputError, match=f"by process {os.getpid()} on"), locked(Run(run.path)):
            pass
        (run.path / ".owner").unlink()
        with pytest.raises(InputError, match="by another process: wait for it"), locked(run):
            pass
    assert not (run.path / ".owner").exists()
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_run_that_was_removed_meanwhile_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run = create_run(tmp_path, "run", {})
    if when == "before":
        (run.path / "config.json").unlink()
        run.path.rmdir()
    else:
        taken = locks._taken
        monkeypatch.setattr(locks, "_taken", lambda *words: (run.path / "config.json").unlink() or taken(*words))
    with pytest.raises(InputError, match="has just been removed by another process"), locked(run):
        pass
    assert not run.path.exists()


@pytest.mark.parametrize("refusals", [1, 3, 100])
def test_a_file_that_a_reader_has_open_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    replace, tries, pauses = Path.replace, [], []

    def refuse(self: Path, target: Path) -> Path:
        tries.append(target)
        if len(tries) <= refusals:
            raise PermissionError(errno.EACCES, "in use", str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(files.time, "sleep", pauses.append)
    if refusals < 100:
        write_json(tmp_path / "x.json", {})
        assert len(pauses) == refusals
    else:
        with pytest.raises(PermissionError):
            write_json(tmp_path / "x.json", {})
        assert 1 < sum(pauses) < 5, "not for ever"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"] * (refusals < 100)


def test_a_disk_without_permissions_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    write_json(tmp_path / "x.json", {"value": 1})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"value": 1}


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x", "猫\nx\n")
    assert (tmp_path / "x").read_bytes() == "猫\nx\n".encode()


def raising(error: BaseException):
    def command(options: object) -> None:
        raise error

    return command


def windows_error(number: int, code: int) -> OSError:
    error = OSError(number, "The process cannot access the file", "runs/x.json")
    error.winerror = code
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (windows_error(errno.EACCES, 32), "close what has it open, or move it elsewhere"),
        (windows_error(errno.EACCES, 5), "give yourself access to it"),
        (FileExistsError(errno.EEXIST, "exists", "runs/x.json"), "close what has it open, or move it elsewhere"),
        (OSError(errno.ENOTEMPTY, "not empty", "runs/x.json"), "close what has it open, or move it elsewhere"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "runs/x.json"), "move it elsewhere"),
        (OSError(errno.EIO, "Input/output error", "runs/x.json"), "see that its disk works"),
        (OSError(errno.ENOSPC, "No space left", "runs/x.json"), "make room"),
    ],
)
def test_a_file_that_cannot_be_had_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    monkeypatch.setattr("prl_keras.commands.runs.run", raising(error))
    assert main(["runs"]) == 2
    written = capsys.readouterr().err
    assert written.startswith("error: runs/x.json: ")
    assert written.endswith(f"{message}, then repeat the command\n")
    assert written.count("\n") == 1


def test_a_reader_that_has_seen_enough_ends_the_command(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPIPE; to Windows an invalid argument, which with a file's name, or elsewhere, is a fault of the program."""
    gone, fault = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument", "x")
    for windows_now, error, code in ((False, BrokenPipeError(), 141), (True, gone, 141)):
        monkeypatch.setattr(cli, "WINDOWS", windows_now)
        monkeypatch.setattr("prl_keras.commands.runs.run", raising(error))
        assert main(["runs"]) == code
        assert capsys.readouterr().err == ""
    for windows_now, error in ((False, gone), (True, fault)):
        monkeypatch.setattr(cli, "WINDOWS", windows_now)
        monkeypatch.setattr("prl_keras.commands.runs.run", raising(error))
        with pytest.raises(OSError, match="Invalid argument"):
            main(["runs"])


def test_ctrl_break_stops_as_sigterm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    usual = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # else a fault here would end the tests
    with noted() as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.signal == signal.SIGUSR1
    with pytest.raises(Stopped) as stop, terminating():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.value.signal == signal.SIGUSR1
    assert signal.signal(signal.SIGUSR1, usual) == signal.SIG_IGN


def cp1252(monkeypatch: pytest.MonkeyPatch, errors: str = "strict") -> list[io.TextIOWrapper]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors=errors, write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    return streams


@pytest.mark.parametrize(("errors", "shown"), [("strict", b"\\u732b "), ("replace", b"? ")])
def test_what_an_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch, errors: str, shown: bytes) -> None:
    streams = cp1252(monkeypatch, errors)
    ready_streams()
    for stream in streams:
        print("猫", end=" ", file=stream)
        assert stream.buffer.getvalue() == shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs", "--nope"], "error: Unrecognized options: --nope (see python main.py runs --help)"),
        (["runs", "--runs-dir"], "error: Missing value for argument '--runs-dir'"),
        (["runs", "--猫"], "error: Unrecognized options: --\\u732b (see"),
        (["pretrain", "--seed", "x"], "error: Error parsing --seed: 'x' is no whole number (see"),
        (["data", "--max-megapixels", "0.5"], "error: Error parsing --max-megapixels: '0.5' is no whole number (see"),
        (["data", "--validation-fraction", "x"], "error: Error parsing --validation-fraction: 'x' is no number (see"),
    ],
)
def test_a_complaint_is_the_same_line_where_no_box_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    _, stderr = cp1252(monkeypatch)
    assert main(words) == 2
    error = stderr.buffer.getvalue().decode("cp1252")
    assert error.startswith(message)
    assert "---" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_swallows_what_it_is_given(tmp_path: Path, closed: str) -> None:
    """And no file takes its number, to receive what native code prints."""
    create_run(tmp_path, "run", {"command": "pretrain"})
    words = [sys.executable, "main.py", "runs", "--runs-dir", str(tmp_path)]
    assert subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *words], cwd=ROOT, capture_output=True).returncode == 0
    code = "from prl_keras.terminal import ready_streams; ready_streams(); raise SystemExit(open('README.md').fileno())"
    words = [sys.executable, "-c", code]
    number = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *words], cwd=ROOT, capture_output=True).returncode
    assert number > 2


def test_tensorflow_starts_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", refuse)
    monkeypatch.setattr(sys, "stderr", None)
    with startup._quiet_native_startup():
        pass
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", None)
    with startup._quiet_native_startup():
        pass


def test_commands_to_paste_are_quoted_for_the_shell_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my runs"
    for windows_now, quote in ((False, "'"), (True, '"')):
        monkeypatch.setattr(terminal_module, "WINDOWS", windows_now)
        assert main(["evaluate", "latest", "--runs-dir", str(folder)]) == 2
        assert f"`python main.py pretrain --runs-dir {quote}{folder}{quote}`" in capsys.readouterr().err


def test_a_table_shows_a_text_as_it_is(capsys: pytest.CaptureFixture) -> None:
    Terminal(width=80).print("[red]x[/red] :cat: [/]")
    assert capsys.readouterr().out == "[red]x[/red] :cat: [/]\n"


ONLY_POSIX = {
    "os": "fork forkpty getuid geteuid getgid getegid getpgid killpg setsid nice uname statvfs fstatvfs mkfifo mknod "
    "chown fchown lchown fchdir chroot pread pwrite sendfile sync fdatasync sysconf confstr getloadavg openpty ttyname "
    "sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate getxattr setxattr memfd_create copy_file_range "
    "O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK O_SYNC O_DSYNC O_NOATIME O_TMPFILE",
    "signal": "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGSTOP SIGTSTP SIGCONT SIGQUIT alarm "
    "setitimer pause",
    "time": "clock_gettime tzset",
    "": "fcntl resource pwd grp pty termios tty syslog curses readline",
}


def only_posix(code: str) -> set[str]:
    """What the code takes that Windows lacks, unless it asks for it first: hasattr(os, name)."""
    nodes = list(ast.walk(ast.parse(code)))
    taken = {(getattr(node.value, "id", ""), node.attr) for node in nodes if isinstance(node, ast.Attribute)}
    taken |= {(node.module, each.name) for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names}
    modules = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    lacked = {(owner, name) for owner, names in ONLY_POSIX.items() for name in names.split()}
    found = {name for owner, name in taken & lacked if f'hasattr({owner}, "{name}")' not in code}
    return found | modules & set(ONLY_POSIX[""].split())


def test_nothing_is_called_that_windows_lacks_without_an_alternative() -> None:
    for file in [ROOT / "main.py", *(f for d in ("prl_keras", "tuning") for f in (ROOT / d).rglob("*.py"))]:
        assert not only_posix(file.read_text(encoding="utf-8")), file
    assert only_posix("import fcntl, os\nos.getuid()") == {"fcntl", "getuid"}
    assert only_posix("from os import fork\nfrom resource import getrusage") == {"fork", "resource"}
    assert not only_posix('import os\nos.nice(1) if hasattr(os, "nice") else None\nos.kill(1, 2)')


def test_text_files_and_processes_have_an_encoding() -> None:
    """Ruff's rule sees it where it knows that something is a path; this where it looks like one."""
    missing = []
    for file in [
        ROOT / "main.py",
        *(f for d in ("prl_keras", "tuning", "benchmarks") for f in (ROOT / d).rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and lacks_encoding(node):
                missing.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not missing
    for code in (
        "p.read_text()",
        "open(p, 'a')",
        "p.open()",
        "p.open('w', newline='')",
        "subprocess.run(p, text=True)",
    ):
        assert lacks_encoding(ast.parse(code, mode="eval").body), code
    for code in ("open(p, 'rb')", "p.open(mode='wb')", "p.read_text('utf-8')", "Image.open(p)", "run(p, text=False)"):
        assert not lacks_encoding(ast.parse(code, mode="eval").body), code


def lacks_encoding(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(getattr(call.func, "value", None), "id", "")
    options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    if "encoding" in options:
        return False
    if options.get("text") or options.get("universal_newlines"):
        return True
    if name in ("read_text", "write_text"):
        return len(call.args) < 1 + (name == "write_text")
    if name != "open" or owner in ("Image", "os", "gzip", "tarfile", "progress", "opener", "webbrowser"):
        return False
    modes = [*(getattr(argument, "value", None) for argument in call.args), options.get("mode")]
    return not any(isinstance(mode, str) and "b" in mode and re.fullmatch("[rwxabt+]+", mode) for mode in modes)
