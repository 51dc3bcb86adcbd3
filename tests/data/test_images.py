"""A folder or a parquet file of one's own images becomes a data set, with or without questions."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import BAD, picture

from data.catalog import data_set
from data.hub import ColumnError
from data.writing import read_manifest

IMAGES = data_set("images")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / ".hidden").mkdir()
    for index, name in enumerate(["b.png", "a.JPG", "deep/c.webp", ".hidden/d.png"]):
        (source / name).write_bytes(picture(index))
    (source / "notes.txt").write_text("no picture")
    return source


def made(tmp_path: Path, source: Path) -> list[dict[str, Any]]:
    IMAGES.prepare(tmp_path / "made", str(source))
    return list(pq.read_table(tmp_path / "made" / "train.parquet").to_pylist())


def ask(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_folder_of_images_becomes_rows_without_a_question_in_the_order_of_paths(folder: Path, tmp_path: Path) -> None:
    rows = made(tmp_path, folder)
    files = ["a.JPG", "b.png", "deep/c.webp"]
    assert [row["images"][0]["bytes"] for row in rows] == [(folder / file).read_bytes() for file in files]
    assert {row["question_type"] for row in rows} == {"no_question"}
    assert {row["prompt"][0]["content"] for row in rows} == {"<image>"}
    assert pq.read_table(tmp_path / "made" / "train.truth.parquet").num_rows == 0


def test_metadata_gives_questions_answers_and_options(folder: Path, tmp_path: Path) -> None:
    ask(
        folder,
        {"file_name": "b.png", "question": "how many ?", "answer": 3, "id": "mine"},
        {"file_name": "b.png", "question": "which ?", "choices": ["one", "two"]},
        {"file_names": ["a.JPG", "deep/c.webp"], "question": "is <image> like <image> ?"},
        {"file_names": [], "question": "what is 1 + 1 ?"},
    )
    rows = made(tmp_path, folder)
    assert [row["prompt"][0]["content"] for row in rows] == [
        "<image>how many ?",
        "<image>which ?\nChoices:\n(A) one\n(B) two",
        "is <image> like <image> ?",
        "what is 1 + 1 ?",
    ]
    assert [len(row["images"]) for row in rows] == [1, 1, 2, 0]
    assert [row["question_type"] for row in rows] == ["free_form", "multi_choice", "free_form", "free_form"]
    truth = pq.read_table(tmp_path / "made" / "train.truth.parquet", columns=["id", "answer"]).to_pylist()
    assert truth == [{"id": "mine", "answer": "3"}]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "gone.png"])
def test_a_file_that_is_outside_or_not_there_is_reported_and_never_read(
    name: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    ask(folder, {"file_name": name, "question": "what ?"}, {"file_name": "b.png", "question": "what ?"})
    assert len(made(tmp_path, folder)) == 3
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None
    (dropped,) = manifest["dropped"]
    assert dropped["row"] == 0 and name in dropped["problems"][0]["detail"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "line 1: an object expected"),
        ('{"file_name": "b.png", "qestion": "what ?"}', "line 1: unknown qestion; known are file_name"),
        ('{"question": "what ?"}', "line 1: file_name must be a text"),
    ],
)
def test_metadata_that_cannot_be_read_is_named_by_line(line: str, message: str, folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        made(tmp_path, folder)


@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_reported(kind: str, folder: Path, tmp_path: Path) -> None:
    (folder / "b.png").write_bytes(BAD[kind])
    assert len(made(tmp_path, folder)) == 2
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None
    assert [(one["row"], one["problems"][0]["kind"]) for one in manifest["dropped"]] == [(1, kind)]


@pytest.mark.parametrize("column", ["image", "images"])
def test_a_parquet_file_may_hold_bytes_or_structs_and_questions(column: str, tmp_path: Path) -> None:
    values = [picture(index) if column == "image" else [{"bytes": picture(index)}] for index in range(40)]
    source = tmp_path / "mine.parquet"
    pq.write_table(pa.table({column: values, "question": [f"what is {index} ?" for index in range(40)]}), source)
    rows = made(tmp_path, source)
    assert [row["images"][0]["bytes"] for row in rows] == [picture(index) for index in range(40)]
    assert rows[39]["prompt"][0]["content"] == "<image>what is 39 ?"


def test_a_source_that_is_missing_empty_or_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name a folder or a parquet file by SOURCE"):
        IMAGES.prepare(tmp_path / "made")
    with pytest.raises(FileNotFoundError, match="there is no"):
        IMAGES.prepare(tmp_path / "made", str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        IMAGES.prepare(tmp_path / "made", str(tmp_path / "empty"))
    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "other.parquet")
    with pytest.raises(ColumnError, match="a column image or images expected, found picture"):
        IMAGES.prepare(tmp_path / "made", str(tmp_path / "other.parquet"))
