"""Tests of the row format: answers stay aside, ids are unique, and what is written is written once."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data.schema import PROMPT_SCHEMA, TRUTH_SCHEMA, Row
from data.writing import ROWS_PER_GROUP, write_dataset


def row(id: str, answer: str = "42") -> Row:
    return Row(id, "source", "<image>what ?", (b"picture",), "kind", answer)


def refuse_to_start() -> Iterator[Row]:
    raise AssertionError("the rows were consumed")
    yield


def test_no_answer_reaches_the_file_that_is_trained_on(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a", answer="the-secret")]}, {})
    table = pq.read_table(tmp_path / "train.parquet")
    assert table.schema.names == ["id", "data_source", "prompt", "images", "question_type"]
    assert "the-secret" not in str(table.to_pylist())
    assert table.to_pylist() == [
        {
            "id": "a",
            "data_source": "source",
            "prompt": [{"role": "user", "content": "<image>what ?"}],
            "images": [{"bytes": b"picture"}],
            "question_type": "kind",
        }
    ]


def test_the_truth_file_maps_ids_to_answers(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a", "1"), row("b", "2")]}, {})
    table = pq.read_table(tmp_path / "train.truth.parquet")
    assert table.to_pylist() == [{"id": "a", "answer": "1"}, {"id": "b", "answer": "2"}]


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


def test_other_parameters_write_anew(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {"seed": 0})
    assert write_dataset(tmp_path, {"train": [row("b")]}, {"seed": 1})
    assert pq.read_table(tmp_path / "train.parquet")["id"].to_pylist() == ["b"]


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a")]}, {})
    (tmp_path / "train.truth.parquet").write_bytes(b"damaged")
    assert write_dataset(tmp_path, {"train": [row("a")]}, {})
    assert pq.read_table(tmp_path / "train.truth.parquet").num_rows == 1


def test_a_missing_file_is_written_anew(tmp_path: Path) -> None:
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


def test_an_id_that_is_given_twice_is_refused_even_in_two_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the id a is given twice"):
        write_dataset(tmp_path, {"train": [row("a")], "test": [row("a")]}, {})


def test_a_question_must_have_a_placeholder_for_each_image() -> None:
    with pytest.raises(ValueError, match="row a: 1 <image> in the question, 2 images"):
        Row("a", "source", "<image>what ?", (b"one", b"two"), "kind", "1")
