"""Parquet files of any writer are read into one row format, or refused with file, row and what is accepted."""

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verl_ext.datasets.ground_truth import check_truth, read_truth
from verl_ext.datasets.parquet_reader import (
    COLUMNS,
    TRAINER_SCHEMA,
    MalformedRow,
    read_ids,
    read_row,
    read_rows,
    stored_rows,
    whole_rows,
    write_trainer_rows,
)
from verl_ext.datasets.row_format import RowFormatError, canonical_row

# In base64 too long for a path, with characters of both alphabets of base64.
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
QUESTION = "<image>what ?"
MESSAGES = [{"role": "user", "content": QUESTION}]


def write(folder: Path, name: str = "mine", **columns: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def only(file: Path) -> dict[str, Any]:
    (row,) = whole_rows(file)
    return row


def problem(file: Path) -> str:
    (row,) = read_rows(file)
    assert isinstance(row, MalformedRow), row
    return str(row)


def image_formats(folder: Path) -> dict[str, Any]:
    (folder / "pictures").mkdir(parents=True)
    path = folder / "pictures" / "a b.png"
    path.write_bytes(IMAGE)
    plain = base64.b64encode(IMAGE).decode()
    return {
        "bytes": IMAGE,
        "relative path": "pictures/a b.png",
        "absolute path": str(path),
        "file address": path.as_uri(),
        "base64": plain,
        "base64 in lines": base64.encodebytes(IMAGE).decode(),
        "base64 for addresses": base64.urlsafe_b64encode(IMAGE).decode().rstrip("="),
        "data URL": f"data:image/png;base64,{plain}",
        "bytes and a path that is not there": {"bytes": IMAGE, "path": "gone.png"},
        "bytes null": {"bytes": None, "path": "pictures/a b.png"},
        "path alone": {"path": str(path)},
        "base64 in a struct": {"bytes": plain},
        "veRL's": {"image": f"file://{path}"},
    }


@pytest.mark.parametrize("media", ["videos", "audios"])
def test_a_row_with_videos_or_audios_is_refused(media: str, tmp_path: Path) -> None:
    file = write(tmp_path, prompt=[MESSAGES], images=[[IMAGE]], **{media: [["clip.mp4"]]})
    assert f"row 0, id {tmp_path.name}-mine-000000: it has {media}" in problem(file)
    assert only(write(tmp_path, prompt=[MESSAGES], images=[[IMAGE]], **{media: [None]}))["images"]


def test_every_image_format_in_either_column_gives_the_same_bytes(tmp_path: Path) -> None:
    for number, (shape, value) in enumerate(image_formats(tmp_path / "data").items()):
        for column, images in (("images", [value]), ("image", value), ("images", value)):
            file = write(tmp_path / "data", f"{number}", prompt=[MESSAGES], **{column: [images]})
            assert only(file)["images"] == [{"bytes": IMAGE}], (shape, column)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("https://example.org/a.png", "address 'https://example.org/a.png', and nothing is downloaded"),
        ("S3://bucket/a.png", "nothing is downloaded"),
        ({"bytes": None, "path": "http://example.org/a.png"}, "save it to a file before"),
        ("pictures/gone.png", "'pictures/gone.png', which names no file in"),
        ("", "names no file"),
        ("data:image/png;base64,!!!!", "is not base64"),
        ({"bytes": None, "path": None}, "null in all of bytes, path: accepted are the bytes"),
        (None, "image 0 is null: accepted are the bytes"),
        ([1, 2, 3], "of type list"),
        (7, "of type int"),
        ({"image": "a.png", "max_pixels": 9}, "has max_pixels: drop it"),
    ],
)
def test_an_invalid_image_is_refused_with_what_is_accepted(value: Any, why: str, tmp_path: Path) -> None:
    # Arrow infers no element type from nulls alone.
    column_type = pa.list_(pa.binary()) if value is None else None
    message = problem(write(tmp_path, id=["a"], prompt=[MESSAGES], images=pa.array([[value]], column_type)))
    assert message.startswith(f"{tmp_path / 'mine.parquet'}, row 0, id a: image 0 ") and why in message


PARTS = [{"type": "image", "text": None}, {"type": "text", "text": "what ?"}]
EMBEDDED = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(IMAGE).decode()}}


@pytest.mark.parametrize(
    ("prompt", "with_column"),
    [
        (MESSAGES, True),
        (QUESTION, True),
        ("what ?", True),
        (json.dumps(MESSAGES), True),
        ({"role": "user", "content": QUESTION}, True),
        ([{"role": "user", "content": PARTS}], True),
        ([{"role": "user", "content": [{"text": "<image>what ?"}]}], True),
        ([{"role": "user", "content": QUESTION, "name": None, "tool_calls": None}], True),
        ([{"role": "user", "content": [EMBEDDED, {"type": "text", "text": "what ?"}]}], False),
        ([{"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "what ?"}]}], False),
    ],
)
def test_every_prompt_format_gives_the_same_messages(prompt: Any, with_column: bool, tmp_path: Path) -> None:
    file = write(tmp_path, prompt=[prompt], **({"images": [[IMAGE]]} if with_column else {}))
    row = only(file)
    assert (row["prompt"], row["images"]) == (MESSAGES, [{"bytes": IMAGE}])
    # Either column can be read without the other.
    (prompt_row,), (image_row,) = whole_rows(file, ("prompt",)), whole_rows(file, ("images",))
    assert (prompt_row["prompt"], image_row["images"]) == (MESSAGES, [{"bytes": IMAGE}])


def test_messages_before_the_question_are_kept() -> None:
    before = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "yes"},
    ]
    row = canonical_row({"prompt": [*before, *MESSAGES]}, ("prompt",), Path(), "", "")
    assert row["prompt"] == [*before, *MESSAGES]


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (None, "prompt is null, and must be text or a list of messages"),
        ([], "prompt is an empty list"),
        ([{"role": "user", "content": None}], "message 0 of the prompt has role, and must have role and content"),
        ([{"from": "human", "value": "what ?"}], "has from, value, and must have role and content"),
        ([{"role": "human", "content": "what ?"}], "the role 'human', which is none of system, user"),
        ([*MESSAGES, {"role": "assistant", "content": "4"}], "the last message of the prompt is of 'assistant'"),
        ([{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}], "type 'video' and video: accepted are"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "type 'text' and nothing else"),
        ([{"role": "user", "content": "what ?", "tool_calls": "[]"}], "has tool_calls, and nothing is read"),
        ([{"role": "user", "content": [EMBEDDED, {"type": "text", "text": "what ?"}]}], "and in a separate column"),
        (3, "of type int"),
    ],
)
def test_an_invalid_prompt_is_refused(prompt: Any, why: str) -> None:
    with pytest.raises(RowFormatError) as error:
        canonical_row({"prompt": prompt, "images": [IMAGE]}, COLUMNS, Path(), "", "")
    assert why in str(error.value)


def test_rows_without_ids_get_ids_from_their_file_and_position(tmp_path: Path) -> None:
    file = write(tmp_path / "a", prompt=["p", "q"])
    assert read_ids(file) == ["a-mine-000000", "a-mine-000001"] == [row["id"] for row in whole_rows(file)]
    other = write(tmp_path / "b", prompt=["p", "q"], id=[None, "given"])
    assert read_ids(other) == ["b-mine-000000", "given"]
    assert {row["data_source"] for row in whole_rows(other)} == {"b-mine"}


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (pa.array([7, 8]), ["7", "8"]),
        # Integers with a missing value, as pandas stores them.
        (pa.array([7.0, 8.0]), ["7", "8"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (
            pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes], pa.uuid()),
            [str(uuid.UUID(int=n)) for n in (1, 2)],
        ),
        (pa.array([b"a", b"b"]), ["a", "b"]),
    ],
)
def test_ids_of_any_type_are_text(ids: pa.Array, texts: list[str], tmp_path: Path) -> None:
    assert read_ids(write(tmp_path, id=ids, prompt=["p", "q"])) == texts


def test_an_invalid_id_is_refused_with_its_row(tmp_path: Path) -> None:
    message = problem(write(tmp_path / "a", id=[1.5], prompt=["p"]))
    assert "row 0, id a-mine-000000: id is of type float" in message


WIDE = pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.large_string())]))
VIEWS = pa.list_(pa.struct([("role", pa.string_view()), ("content", pa.string_view())]))
ENCODED = pa.list_(pa.struct([("role", pa.dictionary(pa.int8(), pa.string())), ("content", pa.string())]))
MAPS = pa.list_(pa.map_(pa.string(), pa.string()))


@pytest.mark.parametrize("prompt", [WIDE, VIEWS, ENCODED, MAPS], ids=["wide", "views", "dictionary", "maps"])
@pytest.mark.parametrize("image", [pa.large_binary(), pa.binary_view(), pa.binary(len(IMAGE))], ids=str)
def test_types_of_other_writers_are_read(prompt: pa.DataType, image: pa.DataType, tmp_path: Path) -> None:
    messages = [list(message.items()) for message in MESSAGES] if prompt == MAPS else MESSAGES
    file = write(tmp_path, prompt=pa.array([messages], prompt), images=pa.array([[IMAGE]], pa.large_list(image)))
    assert (only(file)["prompt"], only(file)["images"]) == (MESSAGES, [{"bytes": IMAGE}])


def test_unread_columns_may_hold_anything(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        prompt=[QUESTION],
        images=[IMAGE],
        __index_level_0__=[5],
        ability=["math"],
        provenance=["the web"],
        synthesis=["gpt"],
        embedding=pa.array([[0.5] * 4], pa.list_(pa.float16(), 4)),
        at=pa.array([10**18], pa.timestamp("ns", "Asia/Tokyo")),
        nothing=pa.nulls(1),
    )
    row = only(file)
    assert row["prompt"] == MESSAGES and row["provenance"] is None and row["synthesis"] is None
    assert (row["question_type"], row["choices"]) == ("free_form", None)


def test_nested_dictionaries_over_several_row_groups_are_read(tmp_path: Path) -> None:
    """Arrow cannot batch nested columns of several chunks: "Nested data conversions not implemented"."""
    choices = pa.array([["one", "two"], ["three", "four"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"prompt": ["p", "q"], "choices": choices}), file, row_group_size=1)
    with pytest.raises(pa.ArrowNotImplementedError, match="chunked array outputs"):
        list(pq.ParquetFile(file).iter_batches(2))
    assert [row["choices"] for row in whole_rows(file)] == [["one", "two"], ["three", "four"]]


def test_options_are_texts_or_numbers(tmp_path: Path) -> None:
    file = write(tmp_path, prompt=["p", "q"], choices=[[1.0, 2.5], []])
    assert [(row["choices"], row["question_type"]) for row in whole_rows(file)] == [
        (["1", "2.5"], "multi_choice"),
        (None, "free_form"),
    ]
    assert "choices is of type str" in problem(write(tmp_path, prompt=["p"], choices=["a;b"]))


def test_a_row_that_is_not_utf8_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    broken = pa.array([b"p", b"caf\xe9", b"q"]).view(pa.string())
    file = write(tmp_path, prompt=broken)
    first, bad, last = read_rows(file)
    assert isinstance(first, dict) and isinstance(last, dict)
    assert isinstance(bad, MalformedRow) and "row 1" in str(bad) and "UTF-8" in str(bad)
    with pytest.raises(MalformedRow, match=r"row 1, .* UTF-8"):
        list(stored_rows(file, ["prompt"]))


def test_stored_rows_lack_columns_that_the_file_lacks(tmp_path: Path) -> None:
    file = write(tmp_path, prompt=["p", "q"])
    assert list(stored_rows(file, ["prompt", "answer"])) == [{"prompt": "p"}, {"prompt": "q"}]
    assert list(stored_rows(file, ["answer"])) == [{}, {}]


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    with pytest.raises(ValueError, match=r"mine\.parquet is missing"):
        read_ids(file)
    with pytest.raises(ValueError, match=r"is a folder: a parquet file is needed"):
        read_ids(tmp_path)
    for content, why in (
        (b"", "0 bytes"),
        (b'{"prompt": "what ?"}\n', "magic bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "`git lfs pull`"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"mine\.parquet is not a parquet file: .*{why}"):
            read_ids(file)
    with pytest.raises(ValueError, match="has no rows"):
        read_ids(write(tmp_path, prompt=pa.array([], pa.string())))
    with pytest.raises(ValueError, match=r"has no column prompt \(found: question\): docs/data\.md"):
        list(read_rows(write(tmp_path, question=["what ?"])))
    pq.write_table(pa.Table.from_arrays([pa.array(["p"]), pa.array(["q"])], ["prompt", "prompt"]), file)
    with pytest.raises(ValueError, match="more than one column prompt"):
        read_ids(file)
    pq.write_table(pa.table({"prompt": ["what ?" * 1000] * 9}), file, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.parquet: rows from 0 on cannot be read"):
        list(read_rows(file))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image", "bytes", "path"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.fixed_dictionaries({}, optional={name: ANYTHING for name in (*COLUMNS, "image")}))
def test_any_row_is_converted_to_the_row_format_or_refused(raw: dict[str, Any], tmp_path: Path) -> None:
    try:
        row = canonical_row(raw, COLUMNS, tmp_path, "mine", "a")
    except RowFormatError:
        return
    assert row["prompt"][-1]["role"] == "user"
    assert all(isinstance(message["content"], str) for message in row["prompt"])
    assert all(isinstance(image["bytes"], bytes) for image in row["images"])
    # Converting twice changes nothing.
    assert canonical_row(row, COLUMNS, tmp_path, "other", "a") == row


def test_rows_for_a_trainer_have_one_schema_whatever_their_files_hold(tmp_path: Path) -> None:
    first = write(tmp_path, "a", id=["a", "b"], prompt=["p", "q"], extra_info=[{"index": 4}, None])
    other = write(
        tmp_path, "b", id=["c", "d"], prompt=[MESSAGES, None], image=[IMAGE, None], extra_info=[{"index": "x"}] * 2
    )
    target = tmp_path / "rows" / "all.arrow"
    with pytest.raises(MalformedRow, match="row 1, id d: prompt is null"):
        write_trainer_rows([str(first), str(other)], target)
    assert not list(target.parent.iterdir())
    write_trainer_rows([str(first), str(other)], target, {"b", "d"})
    with pa.memory_map(str(target)) as mapped, pa.ipc.open_stream(mapped) as reader:
        table = reader.read_all()
    assert table.schema == TRAINER_SCHEMA and table["id"].to_pylist() == ["a", "c"]
    assert table["extra_info"].to_pylist() == ['{"index": 4}', '{"index": "x"}']


def test_the_ground_truth_of_foreign_files_is_found(tmp_path: Path) -> None:
    file = write(tmp_path, prompt=["p", "q"])
    with pytest.raises(ValueError, match=r"mine\.parquet has no truth: .*mine\.truth\.parquet is missing"):
        check_truth(file)
    ids = read_ids(file)
    # Without ids, rows and answers correspond by order.
    sidecar = write(tmp_path, "mine.truth", answer=[4.0, 2.5])
    check_truth(file)
    assert read_truth([file]) == dict(zip(ids, ["4", "2.5"], strict=True))
    write(tmp_path, "mine.truth", answer=["4", None])
    with pytest.raises(ValueError, match=r"has no answer for 1 of the 2 rows of .*, the first of them row 1, id "):
        check_truth(file)
    write(tmp_path, "mine.truth", answer=["4"])
    with pytest.raises(ValueError, match="must have the columns id and answer"):
        check_truth(file)
    sidecar.unlink()
    write(tmp_path, prompt=["p"], id=[3], reward_model=[{"style": "rule", "ground_truth": "4"}])
    assert read_truth([file]) == {"3": "4"}
    write(tmp_path, prompt=["p"], id=[3], answer=[["4", "5"]])
    with pytest.raises(ValueError, match=r"mine\.parquet, id 3: the answer is of type list"):
        read_truth([file])
    sidecar = write(tmp_path, "mine.truth", id=[3], answer=["4"])
    assert read_truth([file]) == {"3": "4"}


@pytest.mark.parametrize("per_group", [1, 3, 100])
def test_a_single_read_row_equals_the_row_among_all(tmp_path: Path, per_group: int) -> None:
    table = pa.table(
        {
            "prompt": [[{"role": "user", "content": f"<image>{number} ?"}] for number in range(70)],
            "image": [IMAGE + bytes([number]) for number in range(70)],
        }
    )
    pq.write_table(table, tmp_path / "mine.parquet", row_group_size=per_group)
    for number, row in enumerate(whole_rows(tmp_path / "mine.parquet")):
        assert read_row(tmp_path / "mine.parquet", number) == row
    with pytest.raises(IndexError, match=r"mine\.parquet has no row 70"):
        read_row(tmp_path / "mine.parquet", 70)


def test_a_single_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, prompt=[MESSAGES, MESSAGES], image=["gone.png", "gone.png"])
    with pytest.raises(MalformedRow, match=r"mine\.parquet, row 1, "):
        read_row(file, 1)
