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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_shaped import SHAPES, TEXT_SHAPES, Record, ttrl, write, write_split
from pictures import BAD

from mmupt.benchmarks.wemath import options_of
from mmupt.datasets import data_set, data_sets
from mmupt_data import hub_reader
from mmupt_data.hub import ColumnError, HubDataset, SourceError, with_choices, with_placeholders
from mmupt_data.prepare import describe
from mmupt_data.writer import BadRowError, read_manifest


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test's own, and no way to the hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hub_reader.HfApi, "dataset_info", unreachable)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(file).to_pylist())


def truth_of(folder: Path, split: str) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in rows_of(folder / f"{split}.truth.parquet")}


def test_every_data_set_of_the_hub_has_a_shape_that_is_tested() -> None:
    assert {name for name, one in data_sets().items() if isinstance(one, HubDataset)} == {*SHAPES, *TEXT_SHAPES}


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
            images = _images(origin)
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
def test_questions_without_images_come_from_the_hub_or_as_ttrl_publishes_them(
    name: str, form: str, tmp_path: Path
) -> None:
    record, split = TEXT_SHAPES[name]
    if form == "hub":
        records = [record(index) for index in range(6)]
        write_split(tmp_path / "source", split, records, {})
    else:
        records = [ttrl(index) for index in range(6)]
        (tmp_path / "source").mkdir()
        for file in ("train.json", "test.json"):
            (tmp_path / "source" / file).write_text(json.dumps(records))
    assert data_set(name).prepare(tmp_path / "made", str(tmp_path / "source"))
    rows = rows_of(tmp_path / "made" / "test.parquet")
    questions = [one["problem" if form == "hub" else "prompt"] for one in records]
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": question}] for question in questions]
    assert [row["id"] for row in rows] == [f"{name}-test-{index:06d}" for index in range(6)]
    assert all(row["images"] == [] and not {"answer", "solution"} & set(row) for row in rows)
    assert list(truth_of(tmp_path / "made", "test").values()) == [str(one["answer"]) for one in records]


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
    data_set(name).prepare(tmp_path / "made", str(write(tmp_path / "source", name)))
    truth = truth_of(tmp_path / "made", split)
    ids = [row["id"] for row in rows_of(tmp_path / "made" / f"{split}.parquet")]
    assert list(truth) == ([] if name.endswith(("_in_context", "_direct")) else ids)
    assert all(truth.values())


@pytest.mark.parametrize("name", SHAPES)
def test_each_kind_of_bad_image_is_reported_and_dropped_from_training_and_from_nothing_else(
    name: str, tmp_path: Path
) -> None:
    def spoil(records: list[Record]) -> None:
        for record, image in zip(records[1:], BAD.values(), strict=False):
            _replace_image(record, image)

    source, folder = write(tmp_path / "source", name, rows=len(BAD) + 2, change=spoil), tmp_path / "made"
    data_set(name).prepare(folder, str(source))
    manifest = read_manifest(folder)
    assert manifest is not None
    for split in SHAPES[name][1]:
        training = split == "train"
        reported = [row for row in manifest["dropped" if training else "kept"] if row["split"] == split]
        assert [row["row"] for row in reported] == list(range(1, len(BAD) + 1))
        # The library that reads the source makes null of a list with an image without bytes.
        kinds = [{problem["kind"] for problem in row["problems"]} for row in reported]
        assert all(kind in found for kind, found in zip(BAD, kinds, strict=True))
        rows = [row["id"] for row in rows_of(folder / f"{split}.parquet")]
        assert len(rows) == manifest["rows"][split] == (2 if training else len(BAD) + 2)
        assert set(rows).isdisjoint(row["id"] for row in reported) == training


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
    data_set("geoqa").prepare(tmp_path / "made", str(tmp_path / "source"))
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
        ("wemath", "testmini", {"ID", "key", "question number", "knowledge concept", "option"}),
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
    command = [sys.executable, "-m", "mmupt", "data", "geoqa", "--source", str(source), "--output", str(folder)]
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


def test_a_source_that_was_edited_without_a_change_of_size_is_read_again(tmp_path: Path) -> None:
    one, source = data_set("geoqa"), write(tmp_path / "source", "geoqa")
    (file,) = source.rglob("*.parquet")
    table = pq.read_table(file)
    for answer in ("11", "22", "33"):
        answers = pa.array([answer] * table.num_rows)
        edited = table.set_column(table.schema.names.index("answer"), "answer", answers)
        pq.write_table(edited, file, compression="none")
        # The last time without SOURCE: the copy that is known is still there.
        assert one.prepare(tmp_path / "made", None if answer == "33" else str(source))
        truth = pq.read_table(tmp_path / "made" / "train.truth.parquet", columns=["answer"])["answer"].to_pylist()
        assert set(truth) == {answer}


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
        return hub_reader.Dataset.from_parquet(str(source / "data" / f"{split}-00000-of-00001.parquet"))

    monkeypatch.setattr(hub_reader.HfApi, "dataset_info", lambda self, path, revision: Info())
    monkeypatch.setattr(hub_reader, "load_dataset", load)
    data_set("geoqa").prepare(tmp_path / "made")
    assert asked == [("WaltonFuture/GEOQA_R1V_Train_8K", None, "c0ffee", "train")]
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None
    assert manifest["source"]["path"] == "WaltonFuture/GEOQA_R1V_Train_8K"
    assert manifest["source"]["revision"] == "c0ffee"
    assert rows_of(tmp_path / "made" / "train.parquet")[0]["provenance"]["revision"] == "c0ffee"
    assert not data_set("geoqa").prepare(tmp_path / "made")


def test_no_copy_of_a_source_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, home = tmp_path / "made", tmp_path / "home"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", home)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    for source in (write(tmp_path / "a [1] source", "geoqa"), write(tmp_path / "b", "wemath")):
        data_set("geoqa" if "[" in source.name else "wemath").prepare(made / source.name, str(source))
        assert not [file for file in made.rglob("*") if file.suffix not in (".parquet", ".json") and file.is_file()]
        assert not home.exists()


def test_placeholders_are_put_in_front_where_there_are_none() -> None:
    assert with_placeholders("what ?", 2) == "<image><image>what ?"
    assert with_placeholders("in <image1> and <image 2>", 2) == "in <image> and <image>"
    assert with_placeholders("what ?", 0) == "what ?"


@pytest.mark.parametrize("question", ["<image2> or <image1> ?", "<image1> and <image2> and <image1>", "only <image1>"])
def test_numbered_tags_that_do_not_name_each_image_in_its_order_are_text(question: str) -> None:
    assert with_placeholders(question, 2) == f"<image><image>{question}"


def test_options_are_told_apart_by_letters() -> None:
    assert with_choices("what ?", ("5", "6")) == "what ?\nChoices:\n(A) 5\n(B) 6"
    assert with_choices("what ?", None) == "what ?"


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("A. 12 cm;B. 5 cm", ("12 cm", "5 cm")),
        ("A. v = 3; w = 2; B. none", ("v = 3; w = 2", "none")),
        ("A. round ;P.;B. round ;Q.; C. No.", ("round ;P.", "round ;Q.", "No.")),
        ("A. to ;C.  ;B. from ;C.  ;C. none", ("to ;C.", "from ;C.", "none")),
        ("A. 10° B. 20° ;C. 30°; D. none", ("10°", "20°", "30°", "none")),
        ("A. 1 B. 2 C. 3 ;D. 4", ("1", "2", "3", "4")),
        # Of these nobody can be sure.
        ("A. round ;P.;B. No.; F. none", None),
        ("12 cm", None),
        ("B. 5;C. 6", None),
        ("A. 5;C. 6", None),
    ],
)
def test_options_of_wemath_are_told_apart_where_that_is_sure(option: str, choices: tuple[str, ...] | None) -> None:
    assert options_of(option) == choices


def test_options_of_wemath_that_cannot_be_told_apart_stay_as_they_came(tmp_path: Path) -> None:
    def misprint(records: list[Record]) -> None:
        records[0]["option"] = "A. 1;B. 2; F. none"

    data_set("wemath").prepare(tmp_path / "made", str(write(tmp_path / "source", "wemath", change=misprint)))
    row = rows_of(tmp_path / "made" / "testmini.parquet")[0]
    assert row["choices"] is None and row["question_type"] == "multi_choice"
    assert row["prompt"][0]["content"].endswith("\nChoices:\nA. 1;B. 2; F. none")


def test_versions_of_a_mathverse_problem_may_be_equal_and_real_duplicates_are_reported_and_kept(tmp_path: Path) -> None:
    def repeat(records: list[Record]) -> None:
        for record, version in zip(records, ("Text Lite", "Vision Intensive", "Text Lite"), strict=False):
            record |= {"question": "Find x.", "image": hub_shaped.image(0), "problem_version": version}

    data_set("mathverse").prepare(tmp_path / "made", str(write(tmp_path / "source", "mathverse", change=repeat)))
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None and manifest["rows"] == {"testmini": 6} and manifest["dropped"] == []
    (kept,) = manifest["kept"]
    assert kept["row"] == 2 and [problem["kind"] for problem in kept["problems"]] == ["duplicate"]


def test_mathvision_keeps_the_tags_of_a_merged_image_in_question_and_options(tmp_path: Path) -> None:
    def tag(records: list[Record]) -> None:
        records[0] |= {"question": "the cat <image1> runs from tree <image2> home", "options": []}
        records[1] |= {"question": "<image1>", "options": []}
        records[2] |= {"question": "which fits ?\n<image1>", "options": [f"<image{n}>" for n in range(2, 7)]}

    data_set("mathvision").prepare(tmp_path / "made", str(write(tmp_path / "source", "mathvision", change=tag)))
    rows = rows_of(tmp_path / "made" / "test.parquet")
    questions = [row["prompt"][0]["content"] for row in rows]
    assert questions[0] == "<image>the cat <image1> runs from tree <image2> home"
    assert questions[1] == "<image><image1>"
    assert questions[2].startswith("<image>which fits ?\n<image1>\nChoices:\n(A) <image2>\n(B) <image3>")
    assert rows[2]["choices"] == ["<image2>", "<image3>", "<image4>", "<image5>", "<image6>"]


def test_a_row_of_an_evaluation_that_cannot_be_read_ends_it_whatever_the_policy(tmp_path: Path) -> None:
    def spoil(records: list[Record]) -> None:
        records[3]["answer"] = None

    source = write(tmp_path / "source", "mathvista", change=spoil)
    with pytest.raises(
        BadRowError, match=r"row 3, id mathvista-testmini-000003: row \(text expected.*leaves no row out"
    ):
        data_set("mathvista").prepare(tmp_path / "made", str(source), bad_rows="drop")


def test_a_source_with_fewer_rows_than_are_published_is_noticed(tmp_path: Path) -> None:
    data_set("wemath").prepare(tmp_path / "made", str(write(tmp_path / "source", "wemath")))
    assert "the source is not whole: it has 6 of 1740 rows" in describe(tmp_path / "made")


@pytest.mark.parametrize(("name", "restricted"), [("wemath", True), ("geometry3k", False)])
def test_the_manifest_and_the_command_name_the_licence_and_what_it_forbids(
    name: str, restricted: bool, tmp_path: Path
) -> None:
    data_set(name).prepare(tmp_path / "made", str(write(tmp_path / "source", name)))
    manifest = read_manifest(tmp_path / "made")
    assert manifest is not None and manifest["source"]["licence_stated_in"].startswith("https://")
    (licence,) = manifest["licences"]
    assert {row["licence"] for row in rows_of(tmp_path / "made" / f"{SHAPES[name][1][0]}.parquet")} == {licence}
    assert ("not for commercial use" in describe(tmp_path / "made")) == restricted


def test_one_file_for_several_splits_is_refused_with_what_to_give(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "geometry3k") / "data"
    for file in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        with pytest.raises(SourceError, match=r"splits train, validation, test: give the folder that holds train-\*"):
            data_set("geometry3k").prepare(tmp_path / "made", str(source / file))


def test_a_file_that_by_its_name_is_another_split_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "mmr1") / "data"
    with pytest.raises(SourceError, match="give the folder"):
        data_set("mmr1").prepare(tmp_path / "made", str(source / "validation-00000-of-00001.parquet"))
    data_set("mmr1").prepare(tmp_path / "made", str(source / "train-00000-of-00001.parquet"))
    assert not (tmp_path / "made" / "validation.parquet").exists()


def test_an_optional_split_may_be_missing(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "mmr1")
    (source / "data" / "validation-00000-of-00001.parquet").unlink()
    assert data_set("mmr1").prepare(tmp_path / "made", str(source))
    assert not data_set("mmr1").prepare(tmp_path / "made", str(source))
    assert not data_set("mmr1").prepare(tmp_path / "made")
    write(tmp_path / "source", "mmr1")
    assert data_set("mmr1").prepare(tmp_path / "made", str(source))
    assert len(rows_of(tmp_path / "made" / "validation.parquet")) == 6


@pytest.mark.parametrize("layout", ["data/{}-00000-of-00001-a1b2c3.parquet", "{}.parquet", "default/{}/0000.parquet"])
def test_a_copy_without_its_readme_is_read_by_the_names_of_its_files(layout: str, tmp_path: Path) -> None:
    source = write(tmp_path / "source", "mathvision")
    for split in ("test", "testmini"):
        file = source / layout.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        (source / "data" / f"{split}-00000-of-00001.parquet").rename(file)
    # Not of that split, though its name begins alike.
    (source / "testmini_text_only.parquet").write_bytes(b"")
    data_set("mathvision").prepare(tmp_path / "made", str(source))
    assert len(rows_of(tmp_path / "made" / "testmini.parquet")) == 6


def test_what_a_partial_copy_lacks_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "geometry3k")
    one = data_set("geometry3k")
    test = source / "data" / "test-00000-of-00001.parquet"
    test.rename(source / "data" / "test-00001-of-00003.parquet")
    with pytest.raises(SourceError, match=r"lacks test-00000-of-00003\.parquet and 1 more: copy all files"):
        one.prepare(tmp_path / "made", str(source))
    (source / "data" / "test-00001-of-00003.parquet").rename(test)
    test.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SourceError, match=r"test-00000-of-00001\.parquet is a pointer of Git LFS.*git lfs pull"):
        one.prepare(tmp_path / "made", str(source))
    test.write_bytes(b"PAR1 cut")
    with pytest.raises(SourceError, match=r"geometry3k: no split test can be loaded from"):
        one.prepare(tmp_path / "made", str(source))
    test.unlink()
    with pytest.raises(SourceError, match=r"no split test .*Expected test\.parquet.*found data/train-00000-of"):
        one.prepare(tmp_path / "made", str(source))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        SourceError, match=r"no split train .*Expected train\.parquet.*Copy the whole repository hiyouga"
    ):
        one.prepare(tmp_path / "made", str(empty))


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no data set 'mmr2'; known data sets: {', '.join(data_sets())}"):
        data_set("mmr2")
