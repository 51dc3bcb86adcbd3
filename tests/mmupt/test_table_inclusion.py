"""Tables that include the published runs of another table: results, and runs that are refused."""

import shutil
from pathlib import Path

import pytest
from finished_runs import cells, finish, write_events, write_test_rows

from mmupt.cli import main
from mmupt.training.recipe_table import read_included, run_folder, write_table
from mmupt.training.table_runs import TABLE, read_table

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_test_rows(tmp_path)


@pytest.fixture
def published(folder: Path) -> Path:
    """The `table.json` of deleted runs: two seeds of the vote, one seed of random rewards."""
    published = folder / "elsewhere"
    finish(folder, "vote", 1, right_after=3)
    finish(folder, "vote", 2, right_after=4)
    finish(folder, "random", 1, right_after=1)
    write_events(run_folder(folder, "vote", 1) / "tensorboard", 0, {"vote/label_accuracy": {1: 0.25, 2: 0.75}})
    write_table(folder, ["vote", "random"])
    published.mkdir()
    for name in (TABLE, "table.md"):
        (folder / name).rename(published / name)
    for name in ("vote", "random"):
        shutil.rmtree(folder / name)
    return published / TABLE


def test_a_table_is_written_again_from_its_json_file_alone(folder: Path, published: Path) -> None:
    main(["table", "--folder", str(folder), "--no-training", "--include", str(published), "--against", "vote"])
    first, second = ((path / "table.md").read_text().splitlines() for path in (published.parent, folder))
    # Titles differ in the names of the folders, and the second table sorts its rows by name.
    assert sorted(first[1:]) == sorted(second[1:])
    assert read_table(folder / TABLE) == read_table(published)


def test_own_runs_are_paired_by_question_with_included_runs(folder: Path, published: Path) -> None:
    finish(folder, "soft", 1, right_after=4)
    finish(folder, "vote", 3, right_after=3)
    text = write_table(folder, ["soft"], included=read_included(published, folder))
    assert cells(text, "vote")[1] == "1, 2, 3"
    # Against the first row, soft: two of three seeds miss the last of four questions, so -1/6 on average.
    assert cells(text, "vote", 1)[3] == "-16.7 ± 16.7"
    assert [cells(text, recipe)[4] for recipe in ("soft", "random")] == ["+75.0", "+0.0"]


def test_a_seed_in_both_tables_is_refused_before_training(folder: Path, published: Path, no_training: None) -> None:
    finish(folder, "vote", 2, right_after=4)
    with pytest.raises(ValueError, match="has vote with seed 2, too: choose other --seeds, or name your runs with"):
        read_included(published, folder)
    with pytest.raises(ValueError, match="has random with seed 1, too"):
        read_included(published, folder / "empty", {"random": ["mmupt_tiny"]}, [1, 2])


def test_a_table_of_other_questions_is_refused_before_training(
    folder: Path, published: Path, no_training: None
) -> None:
    with pytest.raises(SystemExit, match=r"runs evaluated on .*, but mmupt_tiny is evaluated on figures/test\.parquet"):
        main(["table", "--folder", str(folder), "--include", str(published)])
    # A file of the same name with other questions, detected before or only after the first run.
    published.write_text(published.read_text().replace('"sha"', '"other"'))
    evaluated = {"soft": ["mmupt_tiny", f"mmupt.evaluation_files={folder / 'test.parquet'}"]}
    with pytest.raises(ValueError, match=r"runs evaluated on other questions than those of .*test\.parquet"):
        read_included(published, folder, evaluated, [1])
    finish(folder, "soft", 1, right_after=4)
    with pytest.raises(ValueError, match="vote with seed 1 was not evaluated on the questions of soft with seed 1"):
        write_table(folder, ["soft"], included=read_included(published, folder))


@pytest.mark.parametrize("content", ["", "[]", '{"bases": []}', '{"bases": [], "runs": [{"recipe": "vote"}]}'])
def test_a_missing_file_or_a_file_that_is_not_a_table_is_refused(folder: Path, content: str) -> None:
    (folder / "other.json").write_text(content)
    with pytest.raises(SystemExit, match=r"other\.json is not a table\.json of `mmupt table`"):
        main(["table", "--folder", str(folder), "--include", str(folder / "other.json")])
    with pytest.raises(SystemExit, match=r"error: --include: .*missing\.json is missing: name the table\.json"):
        main(["table", "--folder", str(folder), "--include", str(folder / "missing.json")])


def test_a_published_table_contains_no_absolute_path(folder: Path, published: Path) -> None:
    assert str(folder.parent) not in published.read_text()
    assert '"data":{"' + folder.name + '/test.parquet":"sha"}' in published.read_text()


@pytest.mark.parametrize(
    ("recipe", "name", "accuracy"),
    [("mmupt_tiny", "table.json", "79.5 → 99.9"), ("mmupt_tiny_hard", "table_hard.json", "70.1 → 82.4")],
)
def test_the_published_runs_of_docs_results_can_be_included(
    tmp_path: Path, recipe: str, name: str, accuracy: str
) -> None:
    file = Path(__file__).parents[2] / "docs" / name
    arguments = ["--folder", str(tmp_path), "--no-training", "--include", str(file)]
    main(["table", "--recipes", recipe, *arguments])
    assert cells((tmp_path / "table.md").read_text(), recipe)[2] == accuracy
    assert str(Path.home()) not in file.read_text() and "/tmp/" not in file.read_text()
