"""Tests of the hub's data sets, read from small copies with the published columns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hub_shaped
import pytest
from hub_files import manifest_of, rows_of, truth_of
from hub_shaped import SHAPES, TEXT_SHAPES, Record, ttrl, write, write_split
from pictures import BAD

from mmupt.datasets import data_set, data_sets
from mmupt_data import hub_reader
from mmupt_data.hub import ColumnError, HubDataset
from mmupt_data.prepare import describe
from mmupt_data.writer import BadRowError

pytestmark = pytest.mark.usefixtures("no_internet")


def test_every_data_set_of_the_hub_is_tested() -> None:
    assert {name for name, dataset in data_sets().items() if isinstance(dataset, HubDataset)} == {*SHAPES, *TEXT_SHAPES}


@pytest.mark.parametrize("name", SHAPES)
def test_rows_keep_their_order_and_the_bytes_of_their_images(name: str, tmp_path: Path) -> None:
    build, splits, _ = SHAPES[name]
    source, folder = write(tmp_path / "source", name), tmp_path / "prepared"
    assert data_set(name).prepare(folder, str(source))
    for number, split in enumerate(splits):
        rows = rows_of(folder / f"{split}.parquet")
        expected = [build(100 * number + index) for index in range(6)]
        assert len(rows) == 6
        for index, (row, record) in enumerate(zip(rows, expected, strict=True)):
            images = _images(record)
            assert [image["bytes"] for image in row["images"]] == images
            assert row["prompt"][0]["content"].count("<image>") == len(images) == 1
            assert row["data_source"] == name
            assert row["provenance"] == {
                "source": str(source),
                "revision": None,
                "split": split,
                "row": index,
                "files": None,
            }
        assert len({row["id"] for row in rows}) == 6
        assert not {"answer", "solution", "ground_truth"} & set(rows[0])


@pytest.mark.parametrize("form", ["hub", "TTRL"])
@pytest.mark.parametrize("name", TEXT_SHAPES)
def test_text_questions_are_read_from_the_hubs_files_and_from_ttrls(name: str, form: str, tmp_path: Path) -> None:
    build, split = TEXT_SHAPES[name]
    if form == "hub":
        records = [build(index) for index in range(6)]
        write_split(tmp_path / "source", split, records, {})
    else:
        records = [ttrl(index) for index in range(6)]
        (tmp_path / "source").mkdir()
        for file in ("train.json", "test.json"):
            (tmp_path / "source" / file).write_text(json.dumps(records))
    assert data_set(name).prepare(tmp_path / "prepared", str(tmp_path / "source"))
    rows = rows_of(tmp_path / "prepared" / "test.parquet")
    questions = [record["problem" if form == "hub" else "prompt"] for record in records]
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": question}] for question in questions]
    assert [row["id"] for row in rows] == [f"{name}-test-{index:06d}" for index in range(6)]
    assert all(row["images"] == [] and not {"answer", "solution"} & set(row) for row in rows)
    assert list(truth_of(tmp_path / "prepared", "test").values()) == [str(record["answer"]) for record in records]


def _images(record: Record) -> list[bytes]:
    values = [*record.values(), *record.get("images", [])]
    return [value["bytes"] if isinstance(value, dict) else value for value in values if _is_image(value)]


def _is_image(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)


def _replace_image(record: Record, image: bytes) -> None:
    if "images" in record:
        record["images"][0]["bytes"] = image
        return
    (column,) = (name for name, value in record.items() if _is_image(value))
    record[column] = image if isinstance(record[column], bytes) else {"bytes": image, "path": None}


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in SHAPES for split in SHAPES[name][1]])
def test_answers_are_in_the_truth_file_unless_a_model_wrote_them(name: str, split: str, tmp_path: Path) -> None:
    data_set(name).prepare(tmp_path / "prepared", str(write(tmp_path / "source", name)))
    truth = truth_of(tmp_path / "prepared", split)
    ids = [row["id"] for row in rows_of(tmp_path / "prepared" / f"{split}.parquet")]
    assert list(truth) == ([] if name.endswith(("_in_context", "_direct")) else ids)
    assert all(truth.values())


@pytest.mark.parametrize("name", SHAPES)
def test_every_kind_of_bad_image_is_reported_and_dropped_from_training_only(name: str, tmp_path: Path) -> None:
    def spoil(records: list[Record]) -> None:
        for record, image in zip(records[1:], BAD.values(), strict=False):
            _replace_image(record, image)

    source, folder = write(tmp_path / "source", name, rows=len(BAD) + 2, change=spoil), tmp_path / "prepared"
    data_set(name).prepare(folder, str(source))
    manifest = manifest_of(folder)
    for split in SHAPES[name][1]:
        training = split == "train"
        reported = [row for row in manifest["dropped" if training else "kept"] if row["split"] == split]
        assert [row["row"] for row in reported] == list(range(1, len(BAD) + 1))
        # `datasets` reads a list with an image without bytes as null.
        kinds = [{problem["kind"] for problem in row["problems"]} for row in reported]
        assert all(kind in reported_kinds for kind, reported_kinds in zip(BAD, kinds, strict=True))
        rows = [row["id"] for row in rows_of(folder / f"{split}.parquet")]
        assert len(rows) == manifest["rows"][split] == (2 if training else len(BAD) + 2)
        assert set(rows).isdisjoint(row["id"] for row in reported) == training


def test_the_policy_stop_names_the_first_bad_row_and_writes_no_file(tmp_path: Path) -> None:
    def spoil(records: list[Record]) -> None:
        records[3]["problem"] = "<image><image>Find x."

    source = write(tmp_path / "source", "geoqa", change=spoil)
    with pytest.raises(BadRowError, match=r"train\.parquet, row 3, id geoqa-train-000003: image tags"):
        data_set("geoqa").prepare(tmp_path / "prepared", str(source), bad_rows="stop")
    assert not [file for file in (tmp_path / "prepared").iterdir() if file.suffix == ".parquet"]


def test_the_error_about_wrong_columns_lists_the_expected_and_the_found_ones(tmp_path: Path) -> None:
    def rename(records: list[Record]) -> None:
        for record in records:
            record["question"] = record.pop("problem")

    source = write(tmp_path / "source", "mmr1", change=rename)
    with pytest.raises(ColumnError) as error:
        data_set("mmr1").prepare(tmp_path / "prepared", str(source))
    assert "mmr1: " in str(error.value) and "split train" in str(error.value)
    assert "Expected: images (images), problem (text), answer (text)." in str(error.value)
    assert "Found: images (list of image), answer (string), question (string)." in str(error.value)


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    def count(records: list[Record]) -> None:
        for index, record in enumerate(records):
            record["answer"] = index

    with pytest.raises(ColumnError, match=r"answer \(int64\)"):
        data_set("mmr1").prepare(tmp_path / "prepared", str(write(tmp_path / "source", "mmr1", change=count)))


def test_the_older_format_of_geoqa_is_read_too(tmp_path: Path) -> None:
    records = [hub_shaped.geoqa_older(index) for index in range(4)]
    records[2]["solution"] = "it is 2"
    hub_shaped.write_split(tmp_path / "source", "train", records, hub_shaped.IMAGE)
    data_set("geoqa").prepare(tmp_path / "prepared", str(tmp_path / "source"))
    assert list(truth_of(tmp_path / "prepared", "train").values()) == ["0", "1", "3"]
    manifest = manifest_of(tmp_path / "prepared")
    (dropped,) = manifest["dropped"]
    assert dropped["row"] == 2 and "no <answer> tags" in dropped["problems"][0]["detail"]


def test_the_truth_file_has_the_metadata_that_breakdowns_need(tmp_path: Path) -> None:
    for name, split, keys in (
        ("mathvista", "testmini", {"query", "unit", "precision", "answer_type", "metadata"}),
        ("mathvision", "testmini", {"level", "subject"}),
        (
            "mathverse",
            "testmini",
            {"problem_index", "problem_version", "metadata", "query_wo", "query_cot", "question_for_eval"},
        ),
        ("wemath", "testmini", {"ID", "key", "question number", "knowledge concept", "option"}),
    ):
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / f"{name}-source", name)))
        assert set(json.loads(rows_of(tmp_path / name / f"{split}.truth.parquet")[0]["metadata"])) == keys


@pytest.mark.parametrize("name", SHAPES)
def test_a_second_run_does_nothing_and_another_folder_gets_the_same_checksums(name: str, tmp_path: Path) -> None:
    source, dataset = write(tmp_path / "source", name), data_set(name)
    assert dataset.prepare(tmp_path / "a", str(source)) and dataset.prepare(tmp_path / "b", str(source))
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}
    assert not dataset.prepare(tmp_path / "a", str(source)) and not dataset.prepare(tmp_path / "a")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()} == before
    assert manifest_of(tmp_path / "a") == manifest_of(tmp_path / "b")


def test_a_killed_command_leaves_temporary_files_only_and_finishes_when_repeated(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "geoqa", rows=3000)
    folder = tmp_path / "prepared"
    command = [sys.executable, "-m", "mmupt", "data", "geoqa", "--source", str(source), "--output", str(folder)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    partial = folder / "train.parquet.tmp"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as writer:
        while writer.poll() is None and not (partial.is_file() and partial.stat().st_size > 100_000):
            time.sleep(0.001)
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert {file.name for file in folder.iterdir()} == {"train.parquet.tmp", "train.truth.parquet.tmp"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {file.name for file in folder.iterdir()} == {"train.parquet", "train.truth.parquet", "manifest.json"}
    data_set("geoqa").prepare(tmp_path / "undisturbed", str(source))
    assert manifest_of(folder) == manifest_of(tmp_path / "undisturbed")


def test_without_the_hub_the_error_suggests_a_local_copy(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="make data DATASET=mmr1 SOURCE="):
        data_set("mmr1").prepare(tmp_path / "prepared")
    with pytest.raises(FileNotFoundError, match=r"mmr1: there is no \./nowhere"):
        data_set("mmr1").prepare(tmp_path / "prepared", "./nowhere")


def test_the_hubs_newest_commit_is_read_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local copy stands in for the hub and records the requests."""
    source = write(tmp_path / "source", "geoqa")
    requests: list[tuple[Any, ...]] = []

    class Info:
        sha = "c0ffee"

    def load(path: str, configuration: str | None, *, revision: str, split: str) -> Any:
        requests.append((path, configuration, revision, split))
        return hub_reader.Dataset.from_parquet(str(source / "data" / f"{split}-00000-of-00001.parquet"))

    monkeypatch.setattr(hub_reader.HfApi, "dataset_info", lambda self, path, revision: Info())
    monkeypatch.setattr(hub_reader, "load_dataset", load)
    data_set("geoqa").prepare(tmp_path / "prepared")
    assert requests == [("WaltonFuture/GEOQA_R1V_Train_8K", None, "c0ffee", "train")]
    manifest = manifest_of(tmp_path / "prepared")
    assert manifest["source"]["path"] == "WaltonFuture/GEOQA_R1V_Train_8K"
    assert manifest["source"]["revision"] == "c0ffee"
    assert rows_of(tmp_path / "prepared" / "train.parquet")[0]["provenance"]["revision"] == "c0ffee"
    assert not data_set("geoqa").prepare(tmp_path / "prepared")


def test_mathverse_versions_may_be_equal_and_real_duplicates_are_reported_and_kept(tmp_path: Path) -> None:
    def repeat(records: list[Record]) -> None:
        for record, version in zip(records, ("Text Lite", "Vision Intensive", "Text Lite"), strict=False):
            record |= {"question": "Find x.", "image": hub_shaped.image(0), "problem_version": version}

    data_set("mathverse").prepare(tmp_path / "prepared", str(write(tmp_path / "source", "mathverse", change=repeat)))
    manifest = manifest_of(tmp_path / "prepared")
    assert manifest["rows"] == {"testmini": 6} and manifest["dropped"] == []
    (kept,) = manifest["kept"]
    assert kept["row"] == 2 and [problem["kind"] for problem in kept["problems"]] == ["duplicate"]


def test_an_unreadable_evaluation_row_is_an_error_under_any_policy(tmp_path: Path) -> None:
    def spoil(records: list[Record]) -> None:
        records[3]["answer"] = None

    source = write(tmp_path / "source", "mathvista", change=spoil)
    with pytest.raises(
        BadRowError, match=r"row 3, id mathvista-testmini-000003: row \(text expected.*leaves no row out"
    ):
        data_set("mathvista").prepare(tmp_path / "prepared", str(source), bad_rows="drop")


@pytest.mark.parametrize(("name", "restricted"), [("wemath", True), ("geometry3k", False)])
def test_manifest_rows_and_summary_name_the_licence_and_its_restriction(
    name: str, restricted: bool, tmp_path: Path
) -> None:
    data_set(name).prepare(tmp_path / "prepared", str(write(tmp_path / "source", name)))
    manifest = manifest_of(tmp_path / "prepared")
    assert manifest["source"]["licence_stated_in"].startswith("https://")
    (licence,) = manifest["licences"]
    assert {row["licence"] for row in rows_of(tmp_path / "prepared" / f"{SHAPES[name][1][0]}.parquet")} == {licence}
    assert ("not for commercial use" in describe(tmp_path / "prepared")) == restricted


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no data set 'mmr2'; known data sets: {', '.join(data_sets())}"):
        data_set("mmr2")
