"""`--precision auto`: what the processor says, recorded as what it is, and kept by a run that is continued."""

import pytest

from prl_keras import startup
from prl_keras.cli import main, parse
from prl_keras.commands.common import on_this_machine
from prl_keras.runs import Run
from prl_keras.training.precision import with_precision


def on(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    monkeypatch.setattr(startup, "_processor_flags", lambda: flags)


@pytest.mark.parametrize(
    ("flags", "type_"),
    [
        ("flags : fpu avx2 avx512f avx512_vnni", "float32"),
        ("flags : avx512f avx512_bf16", "mixed_bfloat16"),
        ("flags : avx512f amx_bf16 amx_tile", "mixed_bfloat16"),
        ("Features : asimd bf16 i8mm", "mixed_bfloat16"),
        ("Features : asimd", "float32"),
        ("", "float32"),
    ],
)
def test_the_processor_decides(monkeypatch, flags, type_):
    on(monkeypatch, flags)
    for words in (["pretrain"], ["finetune"], ["baseline"], ["tune"]):
        assert with_precision(parse(words)).precision == type_
        assert with_precision(parse(words), "mixed_float16").precision == "mixed_float16"
        assert with_precision(parse([*words, "--precision", "float32"])).precision == "float32"


def test_several_machines_compute_in_the_same_type_and_only_the_chief_looks_for_a_run(monkeypatch, tmp_path):
    on(monkeypatch, "flags : avx512_bf16")
    options = parse(["pretrain", "--strategy", "multiworker", "--resume", "--runs-dir", str(tmp_path)])
    assert on_this_machine("pretrain", options).precision == "float32"


def test_what_a_recipe_gave_is_still_not_given(monkeypatch):
    on(monkeypatch, "flags : avx512_bf16")
    options = parse(["pretrain", "--recipe", "strong", "--epochs", "3"])
    assert with_precision(options).given == options.given == {"recipe", "epochs"}


def test_a_run_records_it_and_keeps_it_on_another_machine(monkeypatch, tmp_path):
    words = ["baseline", "--model", "mlp", "--dataset", "digits", "--image-size", "8", "--samples-per-class", "8"]
    words += ["--epochs", "1", "--name", "run", "--runs-dir", str(tmp_path)]
    on(monkeypatch, "flags : avx2")
    assert main(words) == 0
    run = Run(tmp_path / "run")
    assert run.part("options", "precision") == "float32"
    (run.path / "result.json").unlink()
    on(monkeypatch, "flags : avx512_bf16")
    assert on_this_machine("baseline", parse(words)).precision == "float32", "that of the run that is continued"
    assert on_this_machine("baseline", parse([*words[:-4], *words[-2:]])).precision == "mixed_bfloat16", "another run"


def test_a_table_is_the_same_on_all_machines_unless_it_is_told_otherwise(monkeypatch, tmp_path, capsys):
    """And what auto was when it was begun, it stays."""
    on(monkeypatch, "flags : avx512_bf16")
    words = ["reproduce", "--dataset", "digits", "--rows", "mlp", "--seeds", "1", "--samples-per-class", "8"]
    words += ["--epochs", "1", "--image-size", "8", "--runs-dir", str(tmp_path)]
    found = {}
    for name, more in {"plain": (), "auto": ("--precision", "auto")}.items():
        assert main([*words, "--name", name, *more]) == 0
        found[name] = [Run(tmp_path / name / part).part("options", "precision") for part in ("", "mlp-s0")]
    assert found == {"plain": ["float32"] * 2, "auto": ["mixed_bfloat16"] * 2}
    on(monkeypatch, "flags : avx2")
    assert main([*words, "--name", "auto", "--precision", "auto"]) == 0, "the table is there"
    assert main([*words, "--name", "auto"]) == 2
    assert "precision = mixed_bfloat16, not float32" in capsys.readouterr().err
