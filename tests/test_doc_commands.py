"""Every command in the docs runs as written: its arguments parse and its recipe composes.

Commands are lines of indented and fenced blocks that start with a program (`PROGRAMS`); tests/test_docs.py checks
inline code. If a command needs a GPU, the network, several machines, or hours, the page must say so, in the command's
comment (`# 8 GPUs`) or in a mark `<!-- needs: a GPU -->`, which the site shows. A mark covers the next block or, below
a heading, the whole section. For every other command, a test runs a command of the same kind (`RUN_BY`).
"""

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest
from view_runs import group, picture

from mmupt.cli import COMMANDS, main
from mmupt.compose import RecipeError, load_recipe
from mmupt.datasets import data_sets
from mmupt.evaluation.evaluate import EvaluationError, load_evaluation_config
from mmupt.recipe_files import options
from mmupt.synthesis.run_synthesis import load_synthesis_config
from verl_ext.votes.vote_files import write_votes

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "docs/*.md", "examples/*.md", "recipes/mmupt/README.md"]
# Executed by tests/test_extending.py.
EXECUTED = "docs/extending.md"
PROGRAMS = ("make", "mmupt", "python", "pytest", "ray", "sbatch", "bash", "pip", "apt-get", "jq", "export", "jupyter")
# Third-party programs, whose arguments are not checked.
FOREIGN = ("ray", "sbatch", "bash", "pip", "apt-get", "jq", "export", "jupyter")
# Needs of commands, and the words with which a page states them.
NEEDS = {
    "GPU": r"\bGPUs?\b",
    "network": r"\b(network|hub|download)",
    "machines": r"\b(machines|Slurm)\b",
    "hours": r"\bhours?\b",
}
# The test that runs each command of `mmupt`, and each make target that runs none of them.
RUN_BY = {
    "train": "tests/mmupt/test_full_stack_on_cpu.py::test_the_same_command_after_the_end_only_reports",
    "self-improve": "tests/mmupt/test_rounds_on_cpu.py::"
    "test_a_round_trains_on_the_questions_that_the_policy_wrote_about_images_without_answers",
    "table": "tests/mmupt/test_recipe_table.py::test_a_failed_run_is_named_at_the_end_and_the_other_runs_are_made",
    "eval": "tests/mmupt/test_evaluate_on_cpu.py::test_the_tiny_model_answers_every_question_on_a_cpu",
    "synthesize": "tests/mmupt/test_synthesis.py::test_the_tiny_model_writes_questions_about_figures_on_a_cpu",
    "data": "tests/mmupt_data/test_prepare.py::test_it_says_what_was_written_and_what_was_dropped_and_why",
    "check-leakage": "tests/mmupt/test_leakage_report.py::"
    "test_the_exit_status_tells_whether_more_rows_overlap_than_allowed",
    "score": "tests/mmupt/test_score.py::test_the_command_prints_a_table_per_file",
    "import-responses": "tests/mmupt/test_harness_importers.py::test_an_existing_output_needs_replace",
    "compare": "tests/mmupt/test_compare.py::test_the_command_writes_markdown_json_a_plot_and_a_page",
    "report": "tests/mmupt/test_run_report.py::test_the_command_prints_the_table_and_takes_the_note_from_the_run",
    "view": "tests/mmupt/test_view.py::test_the_server_listens_on_loopback_unless_told_otherwise",
    "tiny-model": "tests/mmupt/test_tiny_model.py::test_the_committed_model_is_noisy_but_its_majority_is_less_so",
    "collapse": "tests/mmupt/test_collapse_on_cpu.py::test_the_command_replays_a_run_with_another_rule",
    "recipes": "tests/mmupt/test_train_on_cpu.py::test_the_list_shows_every_recipe_and_option_with_one_line",
    "memory": "tests/test_extending.py::test_the_examples_of_the_page_run_as_they_are_written",
    "export": "tests/mmupt/test_publishing.py::test_without_a_token_nothing_is_uploaded",
    "doctor": "tests/mmupt/test_doctor.py::test_this_machine_has_what_the_tests_need",
    "completion": "tests/mmupt/test_completion.py::test_the_completion_script_of_each_shell_has_valid_syntax",
    "make setup": "tests/test_setup.py::test_a_second_setup_says_one_line_and_installs_nothing",
    "make docs": "tests/test_docs_site.py::test_the_site_builds_without_a_warning",
}
# CI runs these targets (.ci/run).
CI = ("make lint", "make test", "make test-all", "make lock")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    place: page and line.
    words: the command without environment variables, prompt and comment.
    remark: its comment and the marks that cover it.
    """

    place: str
    words: tuple[str, ...]
    remark: str

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def _blocks(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yield each code block: the marks that cover it, and its numbered lines."""
    sections: list[tuple[int, str]] = []
    heading, mark, fence = 0, "", None
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*text.split("\n"), "end"], 1):
        if fence is not None and not line.startswith("```"):
            block.append((number, line))
            continue
        if fence is None and re.match(r"    +\S", line):
            block.append((number, line.strip()))
            continue
        if not line.strip():
            continue
        if block:
            if fence in (None, "", "bash", "console"):
                yield " ".join([*(mark for _, mark in sections), mark]), block
            block, mark = [], ""
        if line.startswith("```"):
            fence = line[3:].strip() if fence is None else None
        elif match := re.fullmatch(r"<!-- needs: (.*) -->", line):
            if heading:
                sections.append((heading, match[1]))
            else:
                mark = match[1]
        elif title := re.match(r"#+ ", line):
            sections = [section for section in sections if section[0] < len(title[0]) - 1]
        heading = len(title[0]) - 1 if fence is None and (title := re.match(r"#+ ", line)) else 0


def commands_of(place: str, text: str) -> Iterator[Command]:
    """The commands of a page."""
    for remark, block in _blocks(text):
        open_line, first = "", 0
        for number, line in block:
            first = first if open_line else number
            open_line = f"{open_line[:-1] if open_line.endswith(chr(92)) else open_line} {line}".strip()
            if open_line.endswith("\\"):
                continue
            try:
                words = shlex.split(re.sub(r"^(node\d)?\$ ", "", open_line), comments=True)
            except ValueError:
                # A later line closes the quote, unless this is the output of a program.
                if starts_with_program(open_line):
                    continue
                words = []
            comment = open_line.partition(" # ")[2]
            open_line = ""
            words = _without_environment(words)
            if (words and words[0] in PROGRAMS) or (words and re.fullmatch(r"tests/\S+\.sh", words[0])):
                yield Command(f"{place}:{first}", tuple(words), f"{remark} {comment}")


def starts_with_program(line: str) -> bool:
    """Whether the first word of a line is one of `PROGRAMS`."""
    return line.removeprefix("$ ").removeprefix(".venv/bin/").split(" ")[0] in PROGRAMS


def _without_environment(words: Sequence[str]) -> list[str]:
    start = next((number for number, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    return [words[start].removeprefix(".venv/bin/"), *words[start + 1 :]] if start < len(words) else []


def _all_commands() -> list[Command]:
    pages = sorted({page for pattern in PAGES for page in ROOT.glob(pattern)} - {ROOT / EXECUTED})
    return [command for page in pages for command in commands_of(str(page.relative_to(ROOT)), page.read_text())]


ALL = _all_commands()


class Parsed(Exception):
    """Raised with the parsed arguments of a command, instead of running it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


@pytest.fixture
def parsing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands of `mmupt` raise `Parsed` once they have parsed their arguments."""
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def parsed(parser: argparse.ArgumentParser, words: Any, parse: Any = parse) -> None:
            raise Parsed(parse(parser, words))

        monkeypatch.setattr(argparse.ArgumentParser, name, parsed)


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    try:
        main(words)
    except Parsed as parsed:
        return vars(parsed.arguments)
    raise AssertionError(f"mmupt {shlex.join(words)} does not parse")


@cache
def _device(recipe: str, *overrides: str) -> str:
    """The device of a recipe.

    Raises:
        RecipeError: the recipe does not compose.
    """
    return str(load_recipe(recipe, overrides)[0].trainer.device)


def needs_of_mmupt(words: Sequence[str]) -> set[str]:
    """The needs of a command of `mmupt`; raises if its arguments do not parse or compose."""
    # "..." stands for the reader's own arguments.
    name, arguments = words[0], _arguments([word for word in words if word != "..."])
    if name in ("train", "self-improve", "memory", "recipes"):
        if arguments["recipe"] is None or arguments["config_dir"]:
            # There is no recipe to compose, or it is the reader's own.
            return set()
        device = _device(arguments["recipe"], *arguments["overrides"])
        return {"GPU"} if device != "cpu" and name in ("train", "self-improve") else set()
    if name == "table":
        # The first method suffices: other tests compose all methods.
        assert set(arguments["methods"]) <= options("method").keys(), arguments["methods"]
        method = [f"method={arguments['methods'][0]}"] if arguments["methods"] else []
        devices = {_device(recipe, *method, *arguments["overrides"]) for recipe in arguments["recipes"]}
        return {"GPU"} if devices != {"cpu"} else set()
    if name in ("eval", "synthesize"):
        load = load_evaluation_config if name == "eval" else load_synthesis_config
        model = str(load(arguments["overrides"]).model)
        tiny = model == "..." or "tiny" in model
        return set() if tiny else {"GPU"}
    if name == "data" and arguments["name"] is not None:
        known = data_sets()
        assert arguments["name"] in known, f"there is no data set {arguments['name']}"
        is_local = arguments["name"].startswith(("figures", "images"))
        return set() if is_local or arguments["source"] else {"network"}
    return set()


@cache
def mmupt_commands(command: Command) -> list[list[str]]:
    """The commands of `mmupt` that a command runs, without the word `mmupt`."""
    words = list(command.words)
    if words[0] == "mmupt":
        return [words[1:]]
    if words[:3] == ["python", "-m", "mmupt"]:
        return [words[3:]]
    if words[0] == "make" and words[1] in _targets():
        dry_run = ["make", "--dry-run", "--silent", "--old-file=setup", *words[1:]]
        output = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        runs = [shlex.split(line) for line in output.replace("\\\n", " ").splitlines() if " -m mmupt " in line]
        return [run[run.index("mmupt") + 1 :] for run in runs]
    if "mmupt" in (inner := words[words.index("--") + 1 :] if "--" in words else []) or "make" in inner:
        return mmupt_commands(Command(command.place, tuple(_without_environment(inner)), command.remark))
    return []


@cache
def _targets() -> list[str]:
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


@cache
def needs_of(command: Command) -> set[str]:
    """The needs of a command; raises if it cannot run as written."""
    words, needs = command.words, set()
    for inner in mmupt_commands(command):
        needs |= needs_of_mmupt(inner)
    if words[0] == "make":
        assert words[1] in _targets(), f"make has no target {words[1]}"
        needs |= {"hours"} if words[1] == "test-faults" else set()
    elif words[0] == "python" and words[1:2] != ["-m"]:
        needs |= _needs_of_script(words[1:])
    elif words[0] == "pytest" or words[1:3] == ("-m", "pytest"):
        for word in words[1:]:
            assert not word.startswith("tests/") or (ROOT / word.partition("::")[0]).exists(), word
        needs |= {"hours"} if "faults" in words else set()
    elif words[0] in ("sbatch", "ray") or words[0].startswith("tests/"):
        needs.add("machines")
    return needs


def _needs_of_script(words: Sequence[str]) -> set[str]:
    script = ROOT / words[0]
    if not script.is_relative_to(ROOT / "benchmarks"):
        # The page writes this file.
        return set()
    source = script.read_text()
    for option in (word for word in words[1 : words.index("--") if "--" in words else None] if word.startswith("--")):
        assert f'"{option}"' in source, f"{script.name} has no option {option}"
    return {"GPU"} if script.parent.name == "gpu" and "cpu" not in words else set()


@pytest.mark.usefixtures("parsing_alone")
@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_can_run_and_states_its_needs(command: Command) -> None:
    for need in needs_of(command):
        assert re.search(NEEDS[need], command.remark), (
            f"{command} needs {need}: say so in its comment, or above its block with <!-- needs: a {need} -->"
        )


@cache
def _test_functions(file: str) -> str:
    return (ROOT / file).read_text()


@pytest.mark.usefixtures("parsing_alone")
@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_test_runs_every_kind_of_command_without_needs(command: Command) -> None:
    if needs_of(command) or command.words[0] in FOREIGN:
        return
    kinds = [words[0] for words in mmupt_commands(command)]
    if not kinds and command.words[0] == "make" and (kind := " ".join(command.words[:2])) not in CI:
        kinds = [kind]
    for kind in kinds:
        file, _, function = RUN_BY[kind].partition("::")
        assert f"def {function}" in _test_functions(file), f"{RUN_BY[kind]}, which runs {kind}, does not exist"


def test_run_by_has_every_command_of_mmupt() -> None:
    assert COMMANDS.keys() <= RUN_BY.keys()


@pytest.mark.usefixtures("parsing_alone")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("    make train RECIPE=mmupt_mathvista\n", "needs GPU"),
        ('    make train ARGS="method=lsmi"\n', "no method 'lsmi'"),
        ("    mmupt train mmupt_tiny trainer.total_steps=3\n", "no key"),
        ("    mmupt eval model=a benchmark=[mathvista]  # a GPU\n", "benchmark"),
        ("```bash\nmake data DATASET=geoqa\n```\n", "needs network"),
        ("    .venv/bin/python benchmarks/votes.py --rows 3\n", "no option --rows"),
        ("    make trian\n", "make has no target trian"),
    ],
)
def test_broken_commands_and_unstated_needs_are_found(text: str, problem: str) -> None:
    (command,) = commands_of("page.md", text)
    with pytest.raises((AssertionError, RecipeError, EvaluationError), match=re.escape(problem)):
        test_a_command_can_run_and_states_its_needs(command)


def test_a_mark_covers_all_commands_of_the_next_block() -> None:
    text = '<!-- needs: a GPU -->\n\n    make a\n    make b \\\n        ARGS="c d"\n\nText.\n\n    make c\n'
    commands = [(command.words, command.remark.strip()) for command in commands_of("page.md", text)]
    assert commands == [(("make", "a"), "a GPU"), (("make", "b", "ARGS=c d"), "a GPU"), (("make", "c"), "")]


def _python_blocks() -> list[tuple[str, str]]:
    pages = sorted({page for pattern in PAGES for page in ROOT.glob(pattern)})
    return [
        (page.name, block)
        for page in pages
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize(("page", "code"), _python_blocks(), ids=lambda text: text.partition("\n")[0])
def test_python_in_the_pages_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    votes = [group(f"q{number}", "How many?", ["4", "4", "5"], truth="5").row(1) for number in range(2)]
    write_votes(tmp_path / "runs/mmupt_tiny/votes/1.parquet", votes, [])
    image = {"bytes": picture(tmp_path, 1), "path": None}
    row = {"problem": "<image>How many corners?", "answer": "3", "images": [image]}
    pandas.DataFrame([row]).to_parquet("easyr1.parquet")
    exec(compile(code, page, "exec"), {})


def test_rows_of_easyr1_become_a_data_set_without_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [code for page, code in _python_blocks() if page == "migration.md"]
    test_python_in_the_pages_runs("migration.md", code, tmp_path, monkeypatch)
    assert main(["data", "images", "--source", "renamed.parquet", "--output", "datasets/mine"]) == 0
    assert "answer" not in pq.read_schema("datasets/mine/train.parquet").names
    assert pq.read_table("datasets/mine/train.truth.parquet")["answer"].to_pylist() == ["3"]
