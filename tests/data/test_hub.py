"""Every data set of the hub is read from files of its columns; what does not fit is named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hub_shaped
import pyarrow.parquet as pq
import pytest
from hub_shaped import SHAPES, Record, write
from pictures import BAD

from data import hub
from data.catalog import data_set, data_sets
from data.geoqa import DATASETS as GEOQA
from data.hub import ColumnError, HubDataset, with_choices, with_placeholders
from data.wemath import options_of
from data.writing import BadRowError, read_manifest


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test's own, and no way to the hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hub.HfApi, "dataset_info", unreachable)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(file).to_pylist())


def truth_of(folder: Path, split: str) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in rows_of(folder / f"{split}.truth.parquet")}


def test_every_data_set_of_the_hub_has_a_shape_that_is_tested() -> None:
    assert {name for name, one in data_sets().items() if isinstance(one, HubDataset)} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_good_rows_arrive_whole_in_their_order_with_their_images_byte_by_byte(name: str, tmp_path: Path) -> None:
    record, splits, _ = SHAPES[name]
    source, folder = write(tmp_path / "source", name), tmp_path / "made"
    assert data_set(name).prepare(folder, str(source))
    for number, split in enumerate(splits):
        rows = rows_of(folder / f"{split}.parquet")
        expected = [record(100 * number + index) for index in range(6)]
        assert len(rows) == 6
        for index, (row, origin) in enumerate(zip(rows, expected, strict=True)):
            images = [value["bytes"] for value in _images(origin)]
            assert [image["bytes"] for image in row["images"]] == images
            assert row["prompt"][0]["content"].count("<image>") == len(images) == 1
            assert row["data_source"] == name and row["licence"] is None
            assert row["provenance"] == {"source": str(source), "revision": None, "split": split, "row": index}
        assert len({row["id"] for row in rows}) == 6
        assert not {"answer", "solution", "ground_truth"} & set(rows[0])


def _images(record: Record) -> list[Record]:
    values = [value for value in record.values() if isinstance(value, dict) and "bytes" in value]
    return values + list(record.get("images", []))


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in SHAPES for split in SHAPES[name][1]])
def test_answers_are_in_the_truth_file_unless_a_model_wrote_them(name: str, split: str, tmp_path: Path) -> None:
    data_set(name).prepare(tmp_path / "made", str(write(tmp_path / "source", name)))
    truth = truth_of(tmp_path / "made", split)
    ids = [row["id"] for row in rows_of(tmp_path / "made" / f"{split}.parquet")]
    assert list(truth) == ([] if name.endswith(("_in_context", "_direct")) else ids)
    assert all(truth.values())


@pytest.mark.parametrize("name", SHAPES)
def test_each_kind_of_bad_image_is_dropped_and_reported_by_split_row_and_id(name: str, tmp_path: Path) -> None:
    def spoil(records: list[Record]) -> None:
        for record, image in zip(records[1:], BAD.values(), strict=False):
            (_images(record)[0])["bytes"] = image

    source, folder = write(tmp_path / "source", name, rows=len(BAD) + 2, change=spoil), tmp_path / "made"
    data_set(name).prepare(folder, str(source))
    manifest = read_manifest(folder)
    assert manifest is not None
    for split in SHAPES[name][1]:
        dropped = [row for row in manifest["dropped"] if row["split"] == split]
        assert [row["row"] for row in dropped] == list(range(1, len(BAD) + 1))
        # The library that reads the source makes null of an image without bytes.
        kinds = [row["problems"][0]["kind"] for row in dropped]
        assert kinds[1:] == list(BAD)[1:] and kinds[0] in ("no image", "row")
        kept = {row["id"] for row in rows_of(folder / f"{split}.parquet")}
        assert manifest["rows"][split] == len(kept) == 2 and not kept & {row["id"] for row in dropped}


def test_under_the_policy_stop_the_first_bad_row_ends_it_by_name_and_nothing_is_left(tmp_path: Path) -> None:
    def spoil(records: list[Record]) -> None:
        records[3]["problem"] = "<image><image>Find x."

    source = write(tmp_path / "source", "geoqa", change=spoil)
    with pytest.raises(BadRowError, match=r"train\.parquet, row 3, id geoqa-train-000003: image tags"):
        data_set("geoqa").prepare(tmp_path / "made", str(source), bad_rows="stop")
    assert not [file for file in (tmp_path / "made").iterdir() if file.suffix == ".parquet"]


def test_other_columns_are_refused_with_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    def rename(records: list[Record]) -> None:
        for record in records:
            record["question"] = record.pop("problem")

    source = write(tmp_path / "source", "mmr1", change=rename)
    with pytest.raises(ColumnError) as error:
        data_set("mmr1").prepare(tmp_path / "made", str(source))
    assert "mmr1: " in str(error.value) and "split train" in str(error.value)
    assert "Expected: images (images), problem (text), answer (text)." in str(error.value)
    assert "Found: images (list of image), answer (string), question (string)." in str(error.value)


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    def count(records: list[Record]) -> None:
        for index, record in enumerate(records):
            record["answer"] = index

    with pytest.raises(ColumnError, match=r"answer \(int64\)"):
        data_set("mmr1").prepare(tmp_path / "made", str(write(tmp_path / "source", "mmr1", change=count)))


def test_the_older_form_of_geoqa_is_read_too(tmp_path: Path) -> None:
    records = [hub_shaped.geoqa_older(index) for index in range(4)]
    records[2]["solution"] = "it is 2"
    hub_shaped.write_split(tmp_path / "source", "train", records, hub_shaped.IMAGE)
    GEOQA[0].prepare(tmp_path / "made", str(tmp_path / "source"))
    assert list(truth_of(tmp_path / "made", "train").values()) == ["0", "1", "3"]
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None
    (dropped,) = manifest["dropped"]
    assert dropped["row"] == 2 and "no <answer> tags" in dropped["problems"][0]["detail"]


def test_options_are_part_of_the_question_and_a_column_of_their_own(tmp_path: Path) -> None:
    for name, split, options in (
        ("mathvista", "testmini", ["larger", "smaller"]),
        ("mathvision", "test", ["A", "B", "C", "D", "E"]),
        ("thinklite", "train", ["1", "2"]),
        ("wemath", "testmini", ["12 cm", "5 cm^2", "v = 3; w = 2", "No correct answer"]),
    ):
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / f"{name}-source", name)))
        row = rows_of(tmp_path / name / f"{split}.parquet")[1]
        assert row["choices"] == options and row["question_type"] == "multi_choice"
        assert row["prompt"][0]["content"].endswith(
            "\n".join(f"({c}) {o}" for c, o in zip("ABCDE", options, strict=False))
        )


def test_what_breakdowns_need_is_beside_the_truth_and_nowhere_else(tmp_path: Path) -> None:
    for name, split, keys in (
        ("mathvista", "testmini", {"query", "unit", "precision", "answer_type", "metadata"}),
        ("mathvision", "testmini", {"level", "subject"}),
        (
            "mathverse",
            "testmini",
            {"problem_index", "problem_version", "metadata", "query_wo", "query_cot", "question_for_eval"},
        ),
        ("wemath", "testmini", {"ID", "key", "question number", "knowledge concept"}),
    ):
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / f"{name}-source", name)))
        assert set(json.loads(rows_of(tmp_path / name / f"{split}.truth.parquet")[0]["metadata"])) == keys


def test_where_everything_is_drawn_mathverse_asks_for_what_is_in_the_picture(tmp_path: Path) -> None:
    data_set("mathverse").prepare(tmp_path / "made", str(write(tmp_path / "source", "mathverse")))
    questions = [row["prompt"][0]["content"] for row in rows_of(tmp_path / "made" / "testmini.parquet")]
    assert questions[0].startswith("<image>As shown in figure 0")
    assert questions[4] == "<image>Please directly answer the question in figure 4."


@pytest.mark.parametrize("name", SHAPES)
def test_a_second_run_does_nothing_and_another_place_gives_the_same_checksums(name: str, tmp_path: Path) -> None:
    source, one = write(tmp_path / "source", name), data_set(name)
    assert one.prepare(tmp_path / "a", str(source)) and one.prepare(tmp_path / "b", str(source))
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}
    assert not one.prepare(tmp_path / "a", str(source)) and not one.prepare(tmp_path / "a")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()} == before
    assert read_manifest(tmp_path / "a") == read_manifest(tmp_path / "b")


def test_a_kill_half_way_leaves_no_half_file_and_the_same_command_finishes(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "geoqa", rows=3000)
    folder = tmp_path / "made"
    command = [sys.executable, "-m", "data.prepare", "geoqa", "--source", str(source), "--output", str(folder)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    half = folder / "train.parquet.tmp"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as writer:
        while writer.poll() is None and not (half.is_file() and half.stat().st_size > 100_000):
            time.sleep(0.001)
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert {file.name for file in folder.iterdir()} == {"train.parquet.tmp", "train.truth.parquet.tmp"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {file.name for file in folder.iterdir()} == {"train.parquet", "train.truth.parquet", "manifest.json"}
    data_set("geoqa").prepare(tmp_path / "undisturbed", str(source))
    assert read_manifest(folder) == read_manifest(tmp_path / "undisturbed")


def test_without_a_source_files_that_were_made_from_a_copy_are_mended_from_it(tmp_path: Path) -> None:
    source, one = write(tmp_path / "source", "geometry3k"), data_set("geometry3k")
    one.prepare(tmp_path / "made", str(source))
    before = (tmp_path / "made" / "train.parquet").read_bytes()
    (tmp_path / "made" / "train.parquet").write_bytes(b"damaged")
    assert one.prepare(tmp_path / "made")
    assert (tmp_path / "made" / "train.parquet").read_bytes() == before


def test_a_source_that_changed_is_read_again(tmp_path: Path) -> None:
    one = data_set("geoqa")
    one.prepare(tmp_path / "made", str(write(tmp_path / "source", "geoqa")))
    assert one.prepare(tmp_path / "made", str(write(tmp_path / "source", "geoqa", rows=7)))
    assert len(rows_of(tmp_path / "made" / "train.parquet")) == 7


def test_one_parquet_file_is_a_source_too(tmp_path: Path) -> None:
    file = write(tmp_path / "source", "geoqa") / "data" / "train-00000-of-00001.parquet"
    data_set("geoqa").prepare(tmp_path / "made", str(file))
    assert len(rows_of(tmp_path / "made" / "train.parquet")) == 6


def test_without_the_hub_the_error_names_the_copy_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="make data DATASET=mmr1 SOURCE="):
        data_set("mmr1").prepare(tmp_path / "made")
    with pytest.raises(FileNotFoundError, match=r"mmr1: there is no \./nowhere"):
        data_set("mmr1").prepare(tmp_path / "made", "./nowhere")


def test_the_commit_of_the_hub_is_what_is_read_and_what_the_manifest_and_the_rows_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is played by a local copy: what is asked of it is recorded."""
    source = write(tmp_path / "source", "geoqa")
    asked: list[tuple[Any, ...]] = []

    class Info:
        sha = "c0ffee"

    def load(path: str, configuration: str | None, *, revision: str, split: str) -> Any:
        asked.append((path, configuration, revision, split))
        return hub.Dataset.from_parquet(str(source / "data" / f"{split}-00000-of-00001.parquet"))

    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda self, path, revision: Info())
    monkeypatch.setattr(hub, "load_dataset", load)
    data_set("geoqa").prepare(tmp_path / "made")
    assert asked == [("WaltonFuture/GEOQA_R1V_Train_8K", None, "c0ffee", "train")]
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None
    assert manifest["source"] == {"path": "WaltonFuture/GEOQA_R1V_Train_8K", "revision": "c0ffee"}
    assert rows_of(tmp_path / "made" / "train.parquet")[0]["provenance"]["revision"] == "c0ffee"
    assert not data_set("geoqa").prepare(tmp_path / "made")


def test_placeholders_are_put_in_front_where_there_are_none() -> None:
    assert with_placeholders("what ?", 2) == "<image><image>what ?"
    assert with_placeholders("in <image1> and <image 2>", 2) == "in <image> and <image>"
    assert with_placeholders("what ?", 0) == "what ?"


def test_options_are_told_apart_by_letters() -> None:
    assert with_choices("what ?", ("5", "6")) == "what ?\nChoices:\n(A) 5\n(B) 6"
    assert with_choices("what ?", None) == "what ?"


@pytest.mark.parametrize("option", ["12 cm", "B. 5;C. 6", "A. 5;C. 6"])
def test_options_of_wemath_without_letters_in_order_are_refused(option: str) -> None:
    with pytest.raises(hub.RowError, match=r"options A\., B\."):
        options_of(option)


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no data set 'mmr2'; known data sets: {', '.join(data_sets())}"):
        data_set("mmr2")
