"""The examples of docs/extending.md, run as they are written: nothing of them is repeated here."""

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
# A command with the output that follows it.
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
RUN_DOCTEST = "import doctest, sys; sys.exit(doctest.testfile(sys.argv[1], module_relative=False).failed)"


def blocks() -> Iterator[tuple[str, str, str]]:
    """The language, the name of the file ("" for none) and the text of every fenced block."""
    for block in BLOCK.finditer(PAGE.read_text()):
        yield block["language"], block["file"], block["text"]


def run(command: str | list[str], folder: Path, environment: dict[str, str]) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_examples_of_the_page_run_as_they_are_written(tmp_path: Path) -> None:
    # The commands of the code under test, whether it is installed or not.
    command = tmp_path / "bin" / "mmupt"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mmupt "$@"\n')
    command.chmod(0o755)
    folder = tmp_path / "examples"
    folder.mkdir()
    own = os.pathsep.join(str(PAGE.parents[1] / name) for name in (".", "recipes", "data"))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": own,
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
                    environment["PYTHONPATH"] += os.pathsep + own
                    continue
                found = run(line, folder, environment)
                agrees = doctest.OutputChecker().check_output(expected, found, doctest.ELLIPSIS)
                assert agrees, f"$ {line}\nexpected:\n{expected}\nfound:\n{found}"
                ran += 1
        elif language == "pycon":
            (folder / "block.txt").write_text(text)
            run([sys.executable, "-c", RUN_DOCTEST, "block.txt"], folder, environment)
            ran += 1
        else:
            assert file, f"a block of {language} is neither a file nor run:\n{text}"
    assert ran > 6
