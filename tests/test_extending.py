"""Runs all examples of docs/extending.md as written: files, console commands with their output, and Python sessions."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(?P<language>\w+) ?(?P<file>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# A command and its expected output.
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
RUN_DOCTEST = "import doctest, sys; sys.exit(doctest.testfile(sys.argv[1], module_relative=False).failed)"


def blocks() -> Iterator[tuple[str, str, str]]:
    """Yield language, file name ("" for none) and text of every fenced block."""
    for block in BLOCK.finditer(PAGE.read_text()):
        yield block["language"], block["file"], block["text"]


def run(command: str | list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run a command, which must succeed; returns its standard output."""
    result = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_examples_of_the_page_run_as_they_are_written(tmp_path: Path) -> None:
    # `mmupt` must run the code under test, whether it is installed or not.
    command = tmp_path / "bin" / "mmupt"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mmupt "$@"\n')
    command.chmod(0o755)
    folder = tmp_path / "examples"
    folder.mkdir()
    python_path = os.pathsep.join(str(PAGE.parents[1] / name) for name in (".", "recipes", "data"))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": python_path,
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }
    ran = 0
    for _, file, text in blocks():
        if file:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
    for language, file, text in blocks():
        if language == "console":
            for line, expected in COMMAND.findall(text):
                if line.startswith("export "):
                    for assignment in shlex.split(line)[1:]:
                        name, value = assignment.split("=")
                        environment[name] = Template(value).substitute(PWD=folder)
                    environment["PYTHONPATH"] += os.pathsep + python_path
                    continue
                output = run(line, folder, environment)
                agrees = doctest.OutputChecker().check_output(expected, output, doctest.ELLIPSIS)
                assert agrees, f"$ {line}\nexpected:\n{expected}\nprinted:\n{output}"
                ran += 1
        elif language == "pycon":
            (folder / "block.txt").write_text(text)
            run([sys.executable, "-c", RUN_DOCTEST, "block.txt"], folder, environment)
            ran += 1
        else:
            assert file, f"a {language} block has no file name and is not run:\n{text}"
    assert ran > 6
