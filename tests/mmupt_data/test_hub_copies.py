"""Tests of local copies of the hub's data sets: which files are read, and errors about incomplete copies."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_files import rows_of
from hub_shaped import write

from mmupt.datasets import data_set
from mmupt_data.hub import SourceError
from mmupt_data.prepare import describe

pytestmark = pytest.mark.usefixtures("no_internet")


def test_without_source_damaged_files_are_written_again_from_the_recorded_copy(tmp_path: Path) -> None:
    source, dataset = write(tmp_path / "source", "geometry3k"), data_set("geometry3k")
    dataset.prepare(tmp_path / "prepared", str(source))
    before = (tmp_path / "prepared" / "train.parquet").read_bytes()
    (tmp_path / "prepared" / "train.parquet").write_bytes(b"damaged")
    assert dataset.prepare(tmp_path / "prepared")
    assert (tmp_path / "prepared" / "train.parquet").read_bytes() == before


def test_a_source_that_changed_is_read_again(tmp_path: Path) -> None:
    dataset = data_set("geoqa")
    dataset.prepare(tmp_path / "prepared", str(write(tmp_path / "source", "geoqa")))
    assert dataset.prepare(tmp_path / "prepared", str(write(tmp_path / "source", "geoqa", rows=7)))
    assert len(rows_of(tmp_path / "prepared" / "train.parquet")) == 7


def test_an_edit_that_keeps_the_size_of_the_source_is_noticed(tmp_path: Path) -> None:
    dataset, source = data_set("geoqa"), write(tmp_path / "source", "geoqa")
    (file,) = source.rglob("*.parquet")
    table = pq.read_table(file)
    for answer in ("11", "22", "33"):
        answers = pa.array([answer] * table.num_rows)
        edited = table.set_column(table.schema.names.index("answer"), "answer", answers)
        pq.write_table(edited, file, compression="none")
        # The last time without SOURCE, which reads the recorded copy.
        assert dataset.prepare(tmp_path / "prepared", None if answer == "33" else str(source))
        truth = pq.read_table(tmp_path / "prepared" / "train.truth.parquet", columns=["answer"])["answer"].to_pylist()
        assert set(truth) == {answer}


def test_one_parquet_file_is_a_source_too(tmp_path: Path) -> None:
    file = write(tmp_path / "source", "geoqa") / "data" / "train-00000-of-00001.parquet"
    data_set("geoqa").prepare(tmp_path / "prepared", str(file))
    assert len(rows_of(tmp_path / "prepared" / "train.parquet")) == 6


def test_no_copy_of_the_source_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, home = tmp_path / "prepared", tmp_path / "home"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", home)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    for source in (write(tmp_path / "a [1] source", "geoqa"), write(tmp_path / "b", "wemath")):
        data_set("geoqa" if "[" in source.name else "wemath").prepare(prepared / source.name, str(source))
        assert not [file for file in prepared.rglob("*") if file.suffix not in (".parquet", ".json") and file.is_file()]
        assert not home.exists()


def test_a_source_with_fewer_rows_than_published_is_reported(tmp_path: Path) -> None:
    data_set("wemath").prepare(tmp_path / "prepared", str(write(tmp_path / "source", "wemath")))
    assert "the source is not whole: it has 6 of 1740 rows" in describe(tmp_path / "prepared")


def test_one_file_is_refused_for_a_data_set_with_several_splits(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "geometry3k") / "data"
    for file in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        with pytest.raises(SourceError, match=r"splits train, validation, test: give the folder that holds train-\*"):
            data_set("geometry3k").prepare(tmp_path / "prepared", str(source / file))


def test_a_file_named_after_another_split_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "mmr1") / "data"
    with pytest.raises(SourceError, match="give the folder"):
        data_set("mmr1").prepare(tmp_path / "prepared", str(source / "validation-00000-of-00001.parquet"))
    data_set("mmr1").prepare(tmp_path / "prepared", str(source / "train-00000-of-00001.parquet"))
    assert not (tmp_path / "prepared" / "validation.parquet").exists()


def test_an_optional_split_may_be_missing(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "mmr1")
    (source / "data" / "validation-00000-of-00001.parquet").unlink()
    assert data_set("mmr1").prepare(tmp_path / "prepared", str(source))
    assert not data_set("mmr1").prepare(tmp_path / "prepared", str(source))
    assert not data_set("mmr1").prepare(tmp_path / "prepared")
    write(tmp_path / "source", "mmr1")
    assert data_set("mmr1").prepare(tmp_path / "prepared", str(source))
    assert len(rows_of(tmp_path / "prepared" / "validation.parquet")) == 6


@pytest.mark.parametrize("layout", ["data/{}-00000-of-00001-a1b2c3.parquet", "{}.parquet", "default/{}/0000.parquet"])
def test_a_copy_without_its_readme_is_read_by_file_names(layout: str, tmp_path: Path) -> None:
    source = write(tmp_path / "source", "mathvision")
    for split in ("test", "testmini"):
        file = source / layout.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        (source / "data" / f"{split}-00000-of-00001.parquet").rename(file)
    # Starts like the split's name, but is another file.
    (source / "testmini_text_only.parquet").write_bytes(b"")
    data_set("mathvision").prepare(tmp_path / "prepared", str(source))
    assert len(rows_of(tmp_path / "prepared" / "testmini.parquet")) == 6


def test_errors_about_an_incomplete_copy_say_what_is_missing(tmp_path: Path) -> None:
    source = write(tmp_path / "source", "geometry3k")
    dataset = data_set("geometry3k")
    file = source / "data" / "test-00000-of-00001.parquet"
    file.rename(source / "data" / "test-00001-of-00003.parquet")
    with pytest.raises(SourceError, match=r"lacks test-00000-of-00003\.parquet and 1 more: copy all files"):
        dataset.prepare(tmp_path / "prepared", str(source))
    (source / "data" / "test-00001-of-00003.parquet").rename(file)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SourceError, match=r"test-00000-of-00001\.parquet is a pointer of Git LFS.*git lfs pull"):
        dataset.prepare(tmp_path / "prepared", str(source))
    file.write_bytes(b"PAR1 cut")
    with pytest.raises(SourceError, match=r"geometry3k: no split test can be loaded from"):
        dataset.prepare(tmp_path / "prepared", str(source))
    file.unlink()
    with pytest.raises(SourceError, match=r"no split test .*Expected test\.parquet.*found data/train-00000-of"):
        dataset.prepare(tmp_path / "prepared", str(source))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        SourceError, match=r"no split train .*Expected train\.parquet.*Copy the whole repository hiyouga"
    ):
        dataset.prepare(tmp_path / "prepared", str(empty))
