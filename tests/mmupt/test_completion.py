"""Shell completion of `mmupt ...`: the words that are offered, without slow imports."""

import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmupt.cli import COMMANDS
from mmupt.recipe_files import CONFIG_DIR_VARIABLE, options, recipes

PROGRAM = Path(sys.executable).with_name("mmupt")
# Modules that completion must not import, because each takes a tenth of a second or more.
SLOW = ("hydra", "numpy", "omegaconf", "PIL", "psutil", "pyarrow", "scipy", "sympy", "torch")


def complete(line: str, folder: Path, **variables: str) -> tuple[list[str], str]:
    """Return the words that are offered at the end of a command line, and Python's report of imported modules."""
    answer = folder / "answer"
    environment = {
        **os.environ,
        **{"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_SHELL": "bash"},
        **{"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_COMP_WORDBREAKS": "\"'><=;|&(: \t\n"},
        **variables,
    }
    command = [sys.executable, "-X", "importtime", str(PROGRAM)]
    process = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return answer.read_text().split("\013"), process.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mmupt sc", ["score "]),
        ("mmupt train mmupt_tiny_l", ["mmupt_tiny_lora "]),
        ("mmupt train mmupt_tiny --conf", ["--config-dir "]),
        ("mmupt train mmupt_tiny trainer.logger=[console] meth", ["method="]),
        # Bash ends a word at =, so only the value is completed.
        ("mmupt train mmupt_tiny method=soft", ["soft", "soft_min"]),
        ("mmupt memory mmupt_mathvista hardware=cp", ["cpu "]),
        ("mmupt self-improve mmupt_tiny_self_improve +async=separate_", ["separate_cpu "]),
        ("mmupt recipes --explain trainer.lr mmupt_smo", ["mmupt_smoke "]),
        ("mmupt table --recipes mmupt_tiny mmupt_tiny_l", ["mmupt_tiny_lora "]),
        ("mmupt table --methods mmupt superv", ["supervised "]),
        ("mmupt eval preset=gre", ["greedy "]),
        ("mmupt synthesize preset=pap", ["paper "]),
        ("mmupt tiny-model mea", ["measure "]),
        ("mmupt completion ", ["--help", "bash", "zsh", "fish"]),
        ("mmupt view my_", ["my_run/"]),
    ],
)
def test_commands_flags_recipes_and_group_options_are_offered(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_run").mkdir()
    assert complete(line, tmp_path)[0] == offered


def test_an_empty_word_offers_all_commands_recipes_and_options(tmp_path: Path) -> None:
    assert set(complete("mmupt ", tmp_path)[0]) == {*COMMANDS, "--help", "--version"}
    offered = complete("mmupt train ", tmp_path)[0]
    assert {word for word in offered if not word.startswith("--")} == {*recipes()} and "--config-dir" in offered
    assert set(complete("mmupt train mmupt_tiny model=", tmp_path)[0]) == {*options("model")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_flags_of_a_command_are_offered_without_slow_imports(name: str, tmp_path: Path) -> None:
    offered, imported = complete(f"mmupt {name} --", tmp_path)
    assert offered[0].strip() == "--help"
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in imported.splitlines()}
    assert "argcomplete" in modules and not modules & {*SLOW}


def test_rules_and_data_sets_are_offered_as_values(tmp_path: Path) -> None:
    assert complete("mmupt score --rule ma", tmp_path)[0] == ["mathruler", "math_verify"]
    assert complete("mmupt data geometry3k_d", tmp_path)[0] == ["geometry3k_direct "]


def test_fish_is_given_the_summaries_of_recipes_as_descriptions(tmp_path: Path) -> None:
    fish = {"_ARGCOMPLETE_SHELL": "fish", "_ARGCOMPLETE_DFS": "\t", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    (offered,), _ = complete("mmupt train mmupt_tiny_l", tmp_path, **fish)
    assert offered.split("\t") == ["mmupt_tiny_lora", recipes()["mmupt_tiny_lora"]]


def test_recipes_and_options_of_the_users_folder_are_offered(tmp_path: Path) -> None:
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "my_own.yaml").write_text("# Mine.\ndefaults:\n  - base\n")
    (tmp_path / "configs" / "model" / "my_model.yaml").write_text("# @package _global_\n")
    assert complete("mmupt train --config-dir configs my_", tmp_path)[0] == ["my_own "]
    folder = {CONFIG_DIR_VARIABLE: str(tmp_path / "configs")}
    assert complete("mmupt train mmupt_tiny model=my_", tmp_path, **folder)[0] == ["my_model "]


@pytest.mark.parametrize(
    ("shell", "check"), [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])]
)
def test_the_completion_script_of_each_shell_has_valid_syntax(shell: str, check: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(subprocess.run([PROGRAM, "completion", shell], check=True, capture_output=True, text=True).stdout)
    assert "mmupt" in script.read_text()
    if shutil.which(shell):
        subprocess.run([*check, script], check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_a_real_fish_offers_words_with_their_summaries() -> None:
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    script = "mmupt completion fish | source; complete -C 'mmupt memory mmupt_tiny_l'; complete -C 'mmupt tab'"
    process = subprocess.run(["fish", "--no-config", "-c", script], env=environment, check=True, capture_output=True)
    summaries = {"mmupt_tiny_lora": recipes()["mmupt_tiny_lora"], "table": COMMANDS["table"]}
    assert process.stdout.decode().splitlines() == [f"{name}\t{summary}" for name, summary in summaries.items()]


def test_a_real_bash_completes_at_the_tab_key(tmp_path: Path) -> None:
    """Type incomplete words, complete them with the tab key, and run the resulting command."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        os.write(controller, b'eval "$(mmupt completion bash)"; echo rea""dy\n')
        _read_until(controller, "ready")
        os.write(controller, b"mmupt reci\t")
        _read_until(controller, "mmupt recipes ")
        os.write(controller, b"--explain trainer.test_freq mmupt_smo\t--he\t\n")
        assert "usage: mmupt recipes" in _read_until(controller, "usage: mmupt recipes")
    finally:
        os.write(controller, b"\x03exit\n")
        bash.kill()
        bash.wait()
        os.close(controller)


def _read_until(controller: int, expected: str, seconds: float = 60) -> str:
    """Read from the terminal until the expected text has appeared, and return all text."""
    text, end = "", time.monotonic() + seconds
    while expected not in text:
        assert time.monotonic() < end, text
        text += os.read(controller, 4096).decode(errors="replace")
    return text
