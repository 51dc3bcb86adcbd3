"""Tests of the writer of data sets: answers in a separate file, bad rows, and writes that are complete or absent."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Barrier

import pyarrow.parquet as pq
import pytest
from hub_files import manifest_of
from pictures import GOOD, encode, picture
from PIL import Image

from mmupt_data.parquet_writer import BYTES_PER_GROUP, ROWS_PER_GROUP
from mmupt_data.row_problems import Problem, Rejected
from mmupt_data.row_schema import PROMPT_SCHEMA, TRUTH_SCHEMA, Row, Synthesis
from mmupt_data.writer import (
    CHECKED_AHEAD,
    BadRowError,
    WriteOptions,
    is_written,
    problem_summary,
    write_dataset,
)


def row(id: str, answer: str = "42") -> Row:
    return Row(id, "source", f"<image>what is {id} ?", (GOOD,), "kind", answer)


def refuse_to_start() -> Iterator[Row]:
    raise AssertionError("the rows were consumed")
    yield


def test_no_answer_reaches_the_file_that_is_trained_on(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a", answer="the-secret")]}, {})
    table = pq.read_table(tmp_path / "train.parquet")
    assert table.schema.names == PROMPT_SCHEMA.names
    assert "the-secret" not in str(table.to_pylist())
    assert table.to_pylist() == [
        {
            "id": "a",
            "data_source": "source",
            "prompt": [{"role": "user", "content": "<image>what is a ?"}],
            "images": [{"bytes": GOOD}],
            "question_type": "kind",
            "choices": None,
            "provenance": None,
            "licence": None,
            "synthesis": None,
        }
    ]


def test_the_truth_file_maps_ids_to_answers(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a", "1"), row("b", "2")]}, {})
    table = pq.read_table(tmp_path / "train.truth.parquet")
    assert table.select(["id", "answer"]).to_pylist() == [{"id": "a", "answer": "1"}, {"id": "b", "answer": "2"}]


def test_files_have_the_declared_schemas_even_without_rows(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": []}, {})
    assert pq.read_schema(tmp_path / "train.parquet").equals(PROMPT_SCHEMA)
    assert pq.read_schema(tmp_path / "train.truth.parquet").equals(TRUTH_SCHEMA)


def test_rows_keep_their_order_over_several_row_groups(tmp_path: Path) -> None:
    ids = [f"{index}" for index in range(2 * ROWS_PER_GROUP + 1)]
    write_dataset(tmp_path, {"train": (row(id) for id in ids)}, {})
    assert pq.read_table(tmp_path / "train.parquet")["id"].to_pylist() == ids
    assert pq.read_table(tmp_path / "train.truth.parquet")["id"].to_pylist() == ids


def test_a_second_write_with_the_same_parameters_does_nothing(tmp_path: Path) -> None:
    assert write_dataset(tmp_path, {"train": [row("a")]}, {"seed": 0})
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert not write_dataset(tmp_path, {"train": refuse_to_start()}, {"seed": 0})
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_other_parameters_write_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {"seed": 0})
    assert write_dataset(tmp_path, {"train": [row("b")]}, {"seed": 1})
    assert pq.read_table(tmp_path / "train.parquet")["id"].to_pylist() == ["b"]


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {})
    (tmp_path / "train.truth.parquet").write_bytes(b"damaged")
    assert write_dataset(tmp_path, {"train": [row("a")]}, {})
    assert pq.read_table(tmp_path / "train.truth.parquet").num_rows == 1


def test_a_missing_file_is_written_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {})
    (tmp_path / "train.parquet").unlink()
    assert write_dataset(tmp_path, {"train": [row("a")]}, {})
    assert (tmp_path / "train.parquet").exists()


def test_an_interrupted_write_leaves_the_old_files_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {"seed": 0})
    with pytest.raises(AssertionError, match="consumed"):
        write_dataset(tmp_path, {"train": refuse_to_start()}, {"seed": 1})
    assert pq.read_table(tmp_path / "train.parquet")["id"].to_pylist() == ["a"]


def test_only_the_declared_files_are_left_behind(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {})
    assert {path.name for path in tmp_path.iterdir()} == {"train.parquet", "train.truth.parquet", "manifest.json"}


def test_a_repeated_id_is_refused_even_in_two_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the id a is given twice"):
        write_dataset(tmp_path, {"train": [row("a")], "test": [row("a")]}, {})


def test_a_row_without_an_answer_is_not_in_the_truth_file(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a"), replace(row("b"), answer=None)]}, {})
    assert pq.read_table(tmp_path / "train.truth.parquet")["id"].to_pylist() == ["a"]


def test_synthetic_questions_are_written_with_their_origin_and_without_a_truth_file(tmp_path: Path) -> None:
    synthesis = Synthesis("parent", "direct", "some/model", 1, "abc", 0.5)
    written = replace(row("a"), answer=None, synthesis=synthesis)
    assert write_dataset(tmp_path, {"train": [written]}, {}, truth=False)
    assert {path.name for path in tmp_path.iterdir()} == {"train.parquet", "manifest.json"}
    assert pq.read_table(tmp_path / "train.parquet").to_pylist()[0]["synthesis"] == asdict(synthesis)
    assert not write_dataset(tmp_path, {"train": refuse_to_start()}, {}, truth=False)


def test_an_answer_without_a_truth_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id a: it has an answer, and no truth file is written"):
        write_dataset(tmp_path, {"train": [row("a")]}, {}, truth=False)


def test_a_bad_row_is_an_error_or_is_dropped_and_listed(tmp_path: Path) -> None:
    rows = [row("a"), replace(row("b"), question="<image><image>what ?"), Rejected("c", (Problem("row", "lost"),))]
    with pytest.raises(BadRowError, match=r"train\.parquet, row 1, id b: image tags \(2 <image> in the question"):
        write_dataset(tmp_path, {"train": rows}, {})
    write_dataset(tmp_path, {"train": rows}, {}, options=WriteOptions("drop"))
    manifest = manifest_of(tmp_path)
    assert manifest["rows"] == {"train": 1}
    assert [(bad["split"], bad["row"], bad["id"], bad["problems"][0]["kind"]) for bad in manifest["dropped"]] == [
        ("train", 1, "b", "image tags"),
        ("train", 2, "c", "row"),
    ]


def test_the_first_of_two_equal_rows_is_kept(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a"), replace(row("a"), id="b")]}, {}, options=WriteOptions("drop"))
    manifest = manifest_of(tmp_path)
    assert manifest["dropped"][0]["id"] == "b" and manifest["dropped"][0]["problems"][0]["kind"] == "duplicate"


def test_a_split_of_bad_rows_only_is_an_error_even_if_they_may_be_dropped(tmp_path: Path) -> None:
    rows = [replace(row(id), images=(b"",)) for id in "ab"]
    with pytest.raises(ValueError, match="no row of 2 can be used: 2 x no image"):
        write_dataset(tmp_path, {"train": rows}, {}, options=WriteOptions("drop"))


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_bytes_of_the_files_do_not_depend_on_the_number_of_threads(tmp_path: Path, workers: int) -> None:
    rows = [replace(row(f"{index:03d}"), images=(picture(index),)) for index in range(60)]
    write_dataset(tmp_path / "one", {"train": rows}, {}, options=WriteOptions("stop", workers=1))
    write_dataset(tmp_path / "other", {"train": rows}, {}, options=WriteOptions("stop", workers=workers))
    assert manifest_of(tmp_path / "one") == manifest_of(tmp_path / "other")


def test_rows_are_read_only_slightly_ahead_of_the_writer(tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    class Tracked(Row):
        def __del__(self) -> None:
            alive.discard(id(self))

    def rows() -> Iterator[Row]:
        nonlocal most
        for index in range(4 * ROWS_PER_GROUP):
            tracked = Tracked(f"{index}", "source", f"<image>what is {index} ?", (GOOD,), "kind", "1")
            alive.add(id(tracked))
            most = max(most, len(alive))
            yield tracked

    write_dataset(tmp_path, {"train": rows()}, {}, options=WriteOptions("stop", workers=2))
    assert most <= ROWS_PER_GROUP + 2 * CHECKED_AHEAD + 4


def test_row_groups_are_small_in_bytes_too(tmp_path: Path) -> None:
    # 2.25 MB per image: 15 fill a group.
    large = [
        replace(row(f"{index}"), images=(encode(Image.effect_noise((1500, 1500), 100), "BMP"),)) for index in range(17)
    ]
    write_dataset(tmp_path, {"train": large}, {})
    metadata = pq.read_metadata(tmp_path / "train.parquet")
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    assert len(sizes) > 1 and max(sizes) < 1.2 * BYTES_PER_GROUP


PAUSED_WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_writer import row
from mmupt_data.writer import write_dataset

def rows():
    for index in range(600):
        if index == 550:
            print("half way", flush=True)
            time.sleep(60)
        yield row(str(index))

write_dataset(Path({folder!r}), {{"train": rows()}}, {{"seed": 1}})
"""


def test_a_killed_write_leaves_the_old_files_and_the_next_run_finishes(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {"seed": 0})
    script = PAUSED_WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "half way\n"
        writer.kill()
    assert pq.read_table(tmp_path / "train.parquet")["id"].to_pylist() == ["a"]
    assert is_written(tmp_path, ["train"], {"seed": 0})
    assert write_dataset(tmp_path, {"train": [row(str(index)) for index in range(600)]}, {"seed": 1})
    assert pq.read_table(tmp_path / "train.parquet").num_rows == 600
    assert {path.name for path in tmp_path.iterdir()} == {"train.parquet", "train.truth.parquet", "manifest.json"}


def test_two_threads_that_write_the_same_folder_take_turns(tmp_path: Path) -> None:
    both = Barrier(2)

    def write() -> bool:
        both.wait()
        return write_dataset(tmp_path, {"train": [row(str(index)) for index in range(50)]}, {})

    with ThreadPoolExecutor(2) as threads:
        written = [future.result() for future in [threads.submit(write), threads.submit(write)]]
    assert sorted(written) == [False, True]


def test_an_evaluation_split_keeps_every_row_and_lists_its_problems(tmp_path: Path) -> None:
    rows = [row("a"), replace(row("b"), images=(b"",)), replace(row("a"), id="c"), replace(row("d"), question="what ?")]
    for bad_rows in ("drop", "stop"):
        folder = tmp_path / bad_rows
        write_dataset(
            folder, {"test": rows}, {}, options=WriteOptions(bad_rows), evaluation=["test"], official_rows={"test": 5}
        )
        assert pq.read_table(folder / "test.parquet")["id"].to_pylist() == ["a", "b", "c", "d"]
        assert pq.read_table(folder / "test.truth.parquet").num_rows == 4
        manifest = manifest_of(folder)
        assert manifest["dropped"] == [] and manifest["official"] == {"test": 5}
        kinds = {bad["id"]: [problem["kind"] for problem in bad["problems"]] for bad in manifest["kept"]}
        assert kinds == {"b": ["no image"], "c": ["duplicate"], "d": ["image tags"]}


def test_control_text_is_listed_and_the_row_is_kept_unchanged(tmp_path: Path) -> None:
    question = "<image>what does <video> mean ?"
    write_dataset(tmp_path, {"train": [replace(row("a"), question=question)]}, {}, options=WriteOptions("stop"))
    assert pq.read_table(tmp_path / "train.parquet")["prompt"][0][0]["content"].as_py() == question
    manifest = manifest_of(tmp_path)
    assert [bad["problems"][0]["kind"] for bad in manifest["kept"]] == ["control text"]


def test_a_summary_has_one_example_per_kind() -> None:
    rows = [
        {"row": 3, "id": "a", "problems": [{"kind": "duplicate", "detail": "as b"}, {"kind": "row", "detail": "lost"}]},
        {"row": 7, "id": "c", "problems": [{"kind": "row", "detail": "other"}]},
    ]
    assert problem_summary(rows) == [
        "2 x row, the first: row 3, id a: lost",
        "1 x duplicate, the first: row 3, id a: as b",
    ]
