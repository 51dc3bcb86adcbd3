"""Tests of the data set `images`: a user's folder or parquet file of images, with or without questions."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_files import manifest_of
from pictures import BAD, encode, picture
from PIL import Image

from mmupt.datasets import data_set
from mmupt_data.hub import ColumnError
from mmupt_data.prepare import describe

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


def prepare(tmp_path: Path, source: Path) -> list[dict[str, Any]]:
    IMAGES.prepare(tmp_path / "prepared", str(source))
    return list(pq.read_table(tmp_path / "prepared" / "train.parquet").to_pylist())


def write_metadata(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_images_of_a_folder_become_rows_without_a_question_sorted_by_path(folder: Path, tmp_path: Path) -> None:
    rows = prepare(tmp_path, folder)
    files = ["a.JPG", "b.png", "deep/c.webp"]
    assert [row["images"][0]["bytes"] for row in rows] == [(folder / file).read_bytes() for file in files]
    assert {row["question_type"] for row in rows} == {"no_question"}
    assert {row["prompt"][0]["content"] for row in rows} == {"<image>"}
    assert pq.read_table(tmp_path / "prepared" / "train.truth.parquet").num_rows == 0


def test_metadata_gives_questions_answers_and_options(folder: Path, tmp_path: Path) -> None:
    write_metadata(
        folder,
        {"file_name": "b.png", "question": "how many ?", "answer": 3, "id": "mine"},
        {"file_name": "b.png", "question": "which ?", "choices": ["one", "two"]},
        {"file_names": ["a.JPG", "deep/c.webp"], "question": "is <image> like <image> ?"},
        {"file_names": [], "question": "what is 1 + 1 ?"},
    )
    rows = prepare(tmp_path, folder)
    assert [row["prompt"][0]["content"] for row in rows] == [
        "<image>how many ?",
        "<image>which ?\nChoices:\n(A) one\n(B) two",
        "is <image> like <image> ?",
        "what is 1 + 1 ?",
    ]
    assert [len(row["images"]) for row in rows] == [1, 1, 2, 0]
    assert [row["question_type"] for row in rows] == ["free_form", "multi_choice", "free_form", "free_form"]
    truth = pq.read_table(tmp_path / "prepared" / "train.truth.parquet", columns=["id", "answer"]).to_pylist()
    assert truth == [{"id": "mine", "answer": "3"}]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "gone.png", "deep/../../secret.png", "elsewhere/secret.png"]
)
def test_a_file_that_is_missing_or_outside_the_folder_is_reported_and_never_read(
    name: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    (folder / "elsewhere").symlink_to(tmp_path)
    write_metadata(folder, {"file_name": name, "question": "what ?"}, {"file_name": "b.png", "question": "what ?"})
    assert len(prepare(tmp_path, folder)) == 3
    manifest = manifest_of(tmp_path / "prepared")
    (dropped,) = manifest["dropped"]
    assert dropped["row"] == 0 and name in dropped["problems"][0]["detail"] and dropped["files"] == [name]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1: an object expected"),
        ('{"file_name": "b.png", "qestion": "what ?"}', "line 1: unknown key 'qestion'; known are file_name"),
        ('{"question": "what ?"}', "line 1: give either file_name, a text, or file_names"),
        ('{"file_name": "b.png", "file_names": ["b.png"]}', "line 1: give either file_name, a text, or file_names"),
        ('{"file_name": 1}', "line 1: file_name must be a text"),
        ('{"file_names": "b.png"}', "line 1: file_names must be a list of texts"),
        ('{"file_name": "b.png", "choices": "yes"}', "line 1: choices must be a list of texts, not 'yes'"),
    ],
)
def test_errors_in_the_metadata_name_the_line(line: str, message: str, folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, folder)


def test_empty_lines_and_lone_surrogates_are_dropped(folder: Path, tmp_path: Path) -> None:
    lines = [
        {"file_names": []},
        *({"file_names": [], "question": f"{key} ?", key: "\ud800"} for key in ("id", "answer")),
    ]
    write_metadata(folder, *lines, {"file_names": [], "question": "what ?"})
    assert "what ?" in [row["prompt"][0]["content"] for row in prepare(tmp_path, folder)]
    manifest = manifest_of(tmp_path / "prepared")
    kinds = [row["problems"][0]["kind"] for row in manifest["dropped"]]
    assert kinds == ["no question", "broken text", "broken text"]


@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_reported(kind: str, folder: Path, tmp_path: Path) -> None:
    (folder / "b.png").write_bytes(BAD[kind])
    assert len(prepare(tmp_path, folder)) == 2
    manifest = manifest_of(tmp_path / "prepared")
    assert [(row["row"], row["problems"][0]["kind"], row["files"]) for row in manifest["dropped"]] == [
        (1, kind, ["b.png"])
    ]


def test_images_of_every_format_are_read_and_other_files_are_counted(folder: Path, tmp_path: Path) -> None:
    forms = {"d.jfif": "JPEG", "e.jp2": "JPEG2000", "f.ppm": "PPM", "g.avif": "AVIF", "h.mpo": "MPO", "i.TIFF": "TIFF"}
    for seed, (name, form) in enumerate(forms.items(), start=10):
        (folder / name).write_bytes(picture(seed, form=form))
    for name in ("paper.pdf", "plot.eps", "stars.fits", "film.mpg", "logo.SVG", "deep/more.svg", "README"):
        (folder / name).write_bytes(b"something else")
    rows = prepare(tmp_path, folder)
    assert [row["provenance"]["files"] for row in rows] == [
        [name] for name in sorted(["a.JPG", "b.png", "deep/c.webp", *forms])
    ]
    manifest = manifest_of(tmp_path / "prepared")
    assert manifest["parameters"]["left_out"] == {
        ".eps": {"files": 1, "first": "plot.eps"},
        ".fits": {"files": 1, "first": "stars.fits"},
        ".mpg": {"files": 1, "first": "film.mpg"},
        ".pdf": {"files": 1, "first": "paper.pdf"},
        ".svg": {"files": 2, "first": "deep/more.svg"},
        ".txt": {"files": 1, "first": "notes.txt"},
        "no suffix": {"files": 1, "first": "README"},
    }


def test_links_to_files_are_followed_because_a_hub_cache_consists_of_them(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / "0f3a").write_bytes(picture(7))
    (folder / "linked.png").symlink_to(blobs / "0f3a")
    (folder / "broken.png").symlink_to(blobs / "gone")
    (folder / "folder").symlink_to(blobs)
    write_metadata(folder, {"file_name": "linked.png", "question": "what ?"})
    rows = prepare(tmp_path, folder)
    assert rows[0]["images"][0]["bytes"] == picture(7) and rows[0]["provenance"]["files"] == ["linked.png"]
    manifest = manifest_of(tmp_path / "prepared")
    assert manifest["dropped"] == []
    left_out = manifest["parameters"]["left_out"]
    assert left_out["broken link"]["first"] == "broken.png" and left_out["linked folder"]["first"] == "folder"


LINE = (
    '{"file_name": "b.png", "question": "one\u2028two\x85three\u2029é"}\r\n{"file_name": "a.JPG", "question": "who ?"}'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_metadata_may_use_any_unicode_encoding_and_only_line_feeds_end_lines(
    encoding: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "metadata.jsonl").write_bytes(LINE.encode(encoding))
    rows = prepare(tmp_path, folder)
    assert [row["prompt"][0]["content"] for row in rows] == [
        "<image>one\u2028two\x85three\u2029é",
        "<image>who ?",
        "<image>",
    ]


def test_metadata_in_another_encoding_is_refused_with_the_fix(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.jsonl").write_bytes('{"file_name": "b.png",\n "question": "é"}'.encode("cp1252"))
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 2: byte 0xe9 is not UTF-8\. .*iconv"):
        prepare(tmp_path, folder)


def test_a_vertical_tab_in_a_question_drops_only_that_row(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "b.png", "question": "one\x0btwo"}\n')
    assert len(prepare(tmp_path, folder)) == 2
    manifest = manifest_of(tmp_path / "prepared")
    assert [row["problems"][0]["kind"] for row in manifest["dropped"]] == ["broken text"]


@pytest.mark.parametrize("name", ["b.png", "metadata.jsonl"])
def test_an_edit_that_keeps_the_size_of_a_file_is_noticed(name: str, folder: Path, tmp_path: Path) -> None:
    write_metadata(folder, {"file_name": "b.png", "question": "who ?"})
    before = prepare(tmp_path, folder)
    assert not IMAGES.prepare(tmp_path / "prepared", str(folder))
    file = folder / name
    size = file.stat().st_size
    if name == "b.png":
        other = encode(Image.new("RGB", (64, 48), "red"))
        file.write_bytes(other + b"\0" * (size - len(other)))
    else:
        file.write_text(file.read_text().replace("who", "why"))
    assert file.stat().st_size == size
    assert prepare(tmp_path, folder) != before


def test_an_edit_that_keeps_the_size_of_a_parquet_file_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "mine.parquet"
    for question in ("who ?", "why ?"):
        table = pa.table({"image": [picture()], "question": [question]})
        pq.write_table(table, source, compression="none", use_dictionary=False)
        assert prepare(tmp_path, source)[0]["prompt"][0]["content"] == f"<image>{question}"


def test_if_no_row_is_usable_the_error_gives_one_example_per_kind_of_problem(folder: Path, tmp_path: Path) -> None:
    for name in ("a.JPG", "b.png"):
        (folder / name).write_bytes(b"this is no picture")
    (folder / "deep" / "c.webp").write_bytes(picture(size=(20, 4020)))
    with pytest.raises(ValueError, match="no row of 3 can be used") as caught:
        prepare(tmp_path, folder)
    assert "2 x unreadable image, the first: row 0, id images-train-000000, file a.JPG: image 0 is no" in str(
        caught.value
    )
    assert "1 x extreme aspect ratio, the first: row 2, id images-train-000002, file deep/c.webp" in str(caught.value)


def test_images_that_decoding_changes_are_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "b.png").write_bytes(encode(Image.new("LA", (64, 48), (0, 0))))
    (folder / "deep" / "c.webp").write_bytes(encode(Image.new("RGBA", (64, 48)), "WEBP"))
    rows = prepare(tmp_path, folder)
    assert [row["images"][0]["bytes"] for row in rows][1:] == [
        (folder / name).read_bytes() for name in ("b.png", "deep/c.webp")
    ]
    manifest = manifest_of(tmp_path / "prepared")
    first = "row 1, id images-train-000001, file b.png"
    assert manifest["changed"] == {"train": {"transparency": {"images": 2, "first": first}}}


@pytest.mark.parametrize("column", ["image", "images"])
def test_a_parquet_file_may_hold_bytes_or_structs_and_questions(column: str, tmp_path: Path) -> None:
    values = [picture(index) if column == "image" else [{"bytes": picture(index)}] for index in range(40)]
    source = tmp_path / "mine.parquet"
    pq.write_table(pa.table({column: values, "question": [f"what is {index} ?" for index in range(40)]}), source)
    rows = prepare(tmp_path, source)
    assert [row["images"][0]["bytes"] for row in rows] == [picture(index) for index in range(40)]
    assert rows[39]["prompt"][0]["content"] == "<image>what is 39 ?"


def test_a_parquet_file_may_hold_paths_and_prompts_and_unreadable_rows_are_reported(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(picture(0))
    encoded = base64.b64encode(picture(1)).decode()
    table = {
        "prompt": [[{"role": "user", "content": text}] for text in ("<image>what ?", "how <image> ?", "<image>", "x")],
        "image": ["a.png", f"data:image/png;base64,{encoded}", "https://example.org/b.png", None],
        "reward_model": [{"ground_truth": str(index)} for index in range(4)],
    }
    pq.write_table(pa.table(table), source / "mine.parquet")
    first, second, text = prepare(tmp_path, source / "mine.parquet")
    assert [row["images"][0]["bytes"] for row in (first, second)] == [picture(0), picture(1)]
    assert [row["prompt"][0]["content"] for row in (first, second, text)] == ["<image>what ?", "how <image> ?", "x"]
    assert [row["id"] for row in (first, second, text)] == [
        "images-train-000000",
        "images-train-000001",
        "images-train-000003",
    ]
    manifest = manifest_of(tmp_path / "prepared")
    assert "nothing is downloaded" in manifest["dropped"][0]["problems"][0]["detail"]
    truth = pq.read_table(tmp_path / "prepared" / "train.truth.parquet").to_pylist()
    assert [row["answer"] for row in truth] == ["0", "1", "3"]


def test_the_summary_lists_unread_columns_and_counts_rows_without_a_question(tmp_path: Path) -> None:
    source = tmp_path / "mine.parquet"
    pq.write_table(
        pa.table({"image": [picture(0), picture(1)], "problem": ["what ?", "how ?"], "A": ["1", "2"]}), source
    )
    prepare(tmp_path, source)
    summary = describe(tmp_path / "prepared")
    assert "2 rows without a question: for synthesis, not for training" in summary
    assert "columns not read: problem, A\n" in summary


def test_a_source_that_is_missing_empty_or_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a folder or a parquet file as SOURCE"):
        IMAGES.prepare(tmp_path / "prepared")
    with pytest.raises(FileNotFoundError, match="there is no"):
        IMAGES.prepare(tmp_path / "prepared", str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        IMAGES.prepare(tmp_path / "prepared", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"with questions in its metadata\.jsonl, or a parquet file, not .*list\.csv"):
        IMAGES.prepare(tmp_path / "prepared", str(tmp_path / "list.csv"))
    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "other.parquet")
    with pytest.raises(ColumnError, match="a column image or images expected, found picture"):
        IMAGES.prepare(tmp_path / "prepared", str(tmp_path / "other.parquet"))
