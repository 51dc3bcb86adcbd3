"""The command `mmupt`: its help, its errors, and that nothing large is imported before a command runs."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmupt import commands
from mmupt.cli import COMMANDS, main

HEAVY = {"datasets", "ray", "tensordict", "torch", "transformers", "verl", "vllm"}


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert shown == [*COMMANDS, "mmupt"]


def test_every_module_of_commands_is_a_command() -> None:
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert modules == {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_a_line_for_every_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(name, capsys=capsys)
    usage, _, rest = text.partition("\n\n")
    assert usage.startswith(f"usage: mmupt {name}")
    assert f"examples:\n    mmupt {name}" in rest
    options, _, _ = rest.partition("options:\n")[2].partition("\n\n")
    # argparse puts the help of an option on its line or on the next; without help, nothing follows.
    lines = options.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  -"):
            assert "  " in line.strip() or following.startswith("      "), f"{name} does not explain {line.strip()}"


def test_an_unknown_command_suggests_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: mmupt has no command 'trian'; did you mean 'train'?\n") and "tiny-model" in output


def test_a_closed_pipe_is_not_an_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mmupt", "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_help_imports_no_large_library() -> None:
    script = f"""
import json, sys
from mmupt.cli import COMMANDS, main
imported = {{}}
for words in ["--help"], *([name, "--help"] for name in COMMANDS):
    try:
        main(words)
    except SystemExit:
        pass
    imported[words[0]] = sorted({HEAVY!r} & sys.modules.keys())
print(json.dumps(imported), file=sys.stderr)
"""
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stderr
    imported = json.loads(output.splitlines()[-1])
    assert {name: modules for name, modules in imported.items() if modules} == {}


@pytest.mark.parametrize(
    "words",
    [["self-improve", "mmupt_tiny_self_improve", "--rounds", "0"], ["data", "figures", "--workers", "-1"]],
)
def test_the_error_about_a_number_below_one_names_its_option(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert f"{words[-2]} must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "--source", "x"], "give its NAME"),
        (["export", "run", "--private"], "name it with --push-to-hub"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_an_unreadable_history_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text("{\n")
    settings = "{mmupt: {stop_on_collapse: {z: 1.0, patience: 2, min_fall: 0.02}}}"
    (tmp_path / "config.yaml").write_text(settings)
    with pytest.raises(SystemExit, match=r"error: .*history\.jsonl, line 1, is no entry of a history: "):
        main(["collapse", str(tmp_path)])


def test_a_missing_or_truncated_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "history.jsonl").touch()
    with pytest.raises(SystemExit):
        main(["collapse", str(tmp_path)])
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/config.yaml is missing: `mmupt train` writes it into the folder of a run\n"
    )
    (tmp_path / "config.yaml").write_text("mmupt: {stop_on_")
    with pytest.raises(SystemExit, match=rf"error: {tmp_path}/config\.yaml is damaged: restore or remove it \("):
        main(["collapse", str(tmp_path)])


def test_keys_that_a_run_of_an_earlier_version_lacks_have_defaults_in_a_replay(tmp_path: Path, capsys) -> None:
    (tmp_path / "history.jsonl").write_text('{"step": 1, "majority_ratio": 0.5}\n')
    (tmp_path / "config.yaml").write_text("{mmupt: {stop_on_collapse: {enable: false, z: 1.0}}}")
    assert main(["collapse", str(tmp_path), "--patience", "1"]) == 0
    assert "does not stop the run" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="min_fall must be a number from 0 to 1, not 2"):
        main(["collapse", str(tmp_path), "--min-fall", "2"])


def test_the_tiny_model_command_names_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*nowhere is not a model folder"):
        main(["tiny-model", "measure", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.jsonl: No such file or directory$"):
        main(["tiny-model", "answerable", str(tmp_path / "nowhere.jsonl"), "--data", "train.parquet"])


def test_overrides_may_come_before_and_after_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmupt.self_improvement import run_rounds

    calls = []
    monkeypatch.setattr(run_rounds, "self_improve", lambda *arguments: calls.append(arguments))
    assert main(["self-improve", "mmupt_tiny_self_improve", "a=1", "--rounds", "2", "+b=[c,d]"]) == 0
    ((recipe, rounds, folder, overrides),) = calls
    assert (recipe, rounds, str(folder), overrides) == (
        "mmupt_tiny_self_improve",
        2,
        "runs/mmupt_tiny_self_improve",
        ["a=1", "+b=[c,d]"],
    )


@pytest.mark.parametrize("words", [["report"], ["report", "run", "--paper", "evaluation"]])
def test_report_needs_either_a_run_or_evaluations(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "give either RUN or --paper with evaluations" in capsys.readouterr().err
